// Package export_trommel_plugin_lifecycle is where the generated code looks for an interface that the plugin exports.
package export_trommel_plugin_lifecycle

import (
	"wit_component/plugin"
	"wit_component/trommel_plugin_lifecycle"
)

func Describe() trommel_plugin_lifecycle.Manifest { return plugin.Describe() }

func Configure(json string) plugin.Result { return plugin.Configure(json) }

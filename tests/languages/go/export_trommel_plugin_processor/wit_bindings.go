// Package export_trommel_plugin_processor is where the generated code looks for an interface that the plugin exports.
package export_trommel_plugin_processor

import "wit_component/plugin"

func Process() plugin.Result { return plugin.Process() }

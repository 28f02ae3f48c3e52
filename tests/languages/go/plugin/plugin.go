// Package plugin is what an author writes: three plugins in one, chosen by `mode` in the settings: `redact`, `sample`
// and `check`.
package plugin

import (
	"encoding/json"
	"fmt"
	"strings"

	witRuntime "go.bytecodealliance.org/pkg/wit/runtime"
	wit "go.bytecodealliance.org/pkg/wit/types"
	batch "wit_component/trommel_plugin_batch"
	host "wit_component/trommel_plugin_host"
	lifecycle "wit_component/trommel_plugin_lifecycle"
	types "wit_component/trommel_plugin_types"
)

type Result = wit.Result[wit.Unit, string]

var (
	settings struct {
		Mode, Pattern, By string
		Keep              float64
	}
	patterns uint32
)

func ok() Result               { return wit.Ok[wit.Unit, string](wit.Unit{}) }
func failed(why string) Result { return wit.Err[wit.Unit, string](why) }

// The runtime reads the clock when no import may be called, so the adapter's is set beforehand.
//
//go:wasmimport wasi_snapshot_preview1 trommel_clock
func setClock(now uint64)

func init() { setClock(host.Now()) }

func Describe() lifecycle.Manifest {
	return lifecycle.Manifest{
		Name: "example", Version: "0.1.0", Signals: []uint8{types.Signal_Logs},
		Reads: []string{"body", "severity", "trace-id"}, Writes: []string{"body", "drop"},
	}
}

func Configure(text string) Result {
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return failed(err.Error())
	}
	if settings.Mode == "redact" {
		compiled := host.Compile([]string{settings.Pattern})
		if compiled.Tag() == wit.ResultErr {
			return failed(compiled.Err())
		}
		patterns = compiled.Ok()
	}
	return ok()
}

// The collector searches: no string moves.
func redact() {
	host.Count("redacted", batch.SearchAndReplace(patterns, types.Places_Body, []string{settings.By}))
}

// Errors stay, and of the other traces the part `keep`.
func sample() {
	severities, fractions := batch.Severities(), batch.TraceFractions()
	var dropped []uint32
	for row, severity := range severities {
		if severity < 17 && fractions[row] < 1-settings.Keep {
			dropped = append(dropped, uint32(row))
		}
	}
	batch.Drop(dropped)
	host.Count("sampled-out", uint32(len(dropped)))
}

func isAnyMarked(mark string) bool {
	for _, body := range batch.Texts(types.Places_Body) {
		if strings.Contains(body, mark) {
			return true
		}
	}
	return false
}

func Process() (result Result) {
	// What the collector handed over in this call may go.
	defer witRuntime.Unpin()
	// A panic that leaves an export would stop the instance.
	defer func() {
		if reason := recover(); reason != nil {
			result = failed(fmt.Sprint("panic: ", reason))
		}
	}()
	setClock(host.Now())
	switch settings.Mode {
	case "redact":
		redact()
	case "sample":
		sample()
	case "check": // One that fails on some records: the collector finds out which, and lets the others pass.
		if isAnyMarked("UNREADABLE") {
			return failed("a record is marked as unreadable")
		}
		host.Count("checked", batch.Rows(types.Level_Item))
	case "spin": // For the tests of limits: a call that never ends on records that say so.
		if isAnyMarked("ENDLESS") {
			for {
			}
		}
	}
	return ok()
}

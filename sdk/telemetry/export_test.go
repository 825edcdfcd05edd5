package telemetry

import "testing"

// Process is a service whose bundle is made up, for examples.
type Process struct{ *process }

// NewProcess stands where a service has New and its client.
func NewProcess(target string) Process {
	return Process{newProcess(&testing.T{}, target, Config{})}
}

// Scrape is the lines of a metric.
func (p Process) Scrape(name string) []string { return p.scrape(&testing.T{}, name) }

// ErrorMessageKey is what the hook calls an evaluation's error message.
const ErrorMessageKey = errorMessageKey

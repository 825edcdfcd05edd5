package bundler

import "testing"

// The end of a line is the end of its object: what is missing is missing there.
func TestACutOffContextIsFoundOnItsLine(t *testing.T) {
	got := checkContexts("c.jsonl", []byte("{\"context\":{}}\n{\"context\":\n{\"context\":{}}\n"))
	if len(got) != 1 || got[0].Line != 2 {
		t.Errorf("%v", got)
	}
}

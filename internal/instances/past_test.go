package instances

import (
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
)

// What an instance ran before is found in the file and in memory, newest first
// and without a gap between one run and the next.
func TestPastOfAnInstance(t *testing.T) {
	path := t.TempDir() + "/instances.db"
	table, err := Open(path, start)
	if err != nil {
		t.Fatal(err)
	}
	in := api.Instance{Target: api.Target{Service: "checkout", Scope: "prod"}, ID: "pod-1", State: api.StateReady}
	for i, version := range []string{"1", "2", "3"} {
		in.Version = version
		for n := range 3 {
			if _, err := table.Put(&in, "", start.Add(time.Duration(i*30+n*10)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if version == "2" {
			if err := table.Flush(start.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	past, err := table.Past(in.Target, "pod-1", 10)
	if err != nil || len(past) != 2 || past[0].Facts.Version != "2" || past[1].Facts.Version != "1" {
		t.Fatalf("%+v, %v", past, err)
	}
	if gap := past[0].Since - past[1].Seen; gap != 1 {
		t.Errorf("%d ms between two runs, want 1", gap)
	}
	if one, err := table.Past(in.Target, "pod-1", 1); err != nil || len(one) != 1 || one[0].Facts.Version != "2" {
		t.Errorf("%+v, %v", one, err)
	}
	if none, err := table.Past(api.Target{Service: "checkout", Scope: "staging"}, "pod-1", 10); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if err := table.Close(start.Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
}

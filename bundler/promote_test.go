package bundler

import (
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
)

const (
	oldCommit = "1111111111111111111111111111111111111111"
	newCommit = "4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a9c4f2a"
	oldDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	newDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func TestPromote(t *testing.T) {
	const head = "# what runs where\nservice: checkout\n\nactivations:   # outermost first\n"
	for _, c := range []struct {
		name, in, scope, release, expect, want string
	}{
		{
			"replaces a release and adds expect",
			head + "  - scope: staging\n    release: latest   # follow\n\n  # the real thing\n  - scope: prod\n    release: " + oldCommit + " # last week\n",
			"prod", newCommit, newDigest,
			head + "  - scope: staging\n    release: latest   # follow\n\n  # the real thing\n  - scope: prod\n    release: " + newCommit + " # last week\n    expect: " + newDigest + "\n",
		},
		{
			"replaces release and expect in any order",
			head + "- expect: '" + oldDigest + "'\n  release: \"" + oldCommit + "\"\n  scope: prod",
			"prod", newCommit, newDigest,
			head + "- expect: '" + newDigest + "'\n  release: \"" + newCommit + "\"\n  scope: prod",
		},
		{
			"takes out an expect that would be wrong",
			head + "  - scope: prod\n    release: " + oldCommit + "\n    expect: " + oldDigest + "  # seen\n  - scope: staging\n    release: latest\n",
			"prod", newCommit, "",
			head + "  - scope: prod\n    release: " + newCommit + "\n  - scope: staging\n    release: latest\n",
		},
		{
			"takes out an expect that stands first",
			head + "  - expect: " + oldDigest + "\n    scope: prod\n    release: " + oldCommit + "\n",
			"prod", "latest", "",
			head + "  - scope: prod\n    release: latest\n",
		},
		{
			"keeps a comment behind an expect that stands first",
			head + "  - expect: " + oldDigest + " # seen\n    # by Ada\n    scope: prod\n    release: " + oldCommit + "\n",
			"prod", "latest", "",
			head + "  -  # seen\n    # by Ada\n    scope: prod\n    release: latest\n",
		},
		{
			"adds an entry in the list's own layout",
			head + "-   scope: staging\n    release: latest # a\n# the end\n",
			"prod/eu-west-1", newCommit, newDigest,
			head + "-   scope: staging\n    release: latest # a\n-   scope: prod/eu-west-1\n    release: " + newCommit + "\n    expect: " + newDigest + "\n# the end\n",
		},
		{
			"adds a line feed where the file has none",
			head + "  - scope: staging\n    release: latest",
			"prod", newCommit, "",
			head + "  - scope: staging\n    release: latest\n  - scope: prod\n    release: " + newCommit + "\n",
		},
		{
			"starts a list",
			"service: checkout\n",
			"prod", "latest", "",
			"service: checkout\nactivations:\n  - scope: prod\n    release: latest\n",
		},
		{
			"fills an empty list",
			"activations: []\nservice: checkout\n",
			"prod", "latest", "",
			"activations:\n  - scope: prod\n    release: latest\nservice: checkout\n",
		},
		{
			"edits flow mappings in place",
			"service: é\nactivations:\n  - {scope: prod, release: " + oldCommit + "} # é\n",
			"prod", newCommit, newDigest,
			"service: é\nactivations:\n  - {scope: prod, release: " + newCommit + ", expect: " + newDigest + "} # é\n",
		},
		{
			"takes expect out of a flow mapping",
			"service: a\nactivations: [{scope: prod, expect: " + oldDigest + ", release: " + oldCommit + "}]\n",
			"prod", newCommit, "",
			"service: a\nactivations: [{scope: prod, release: " + newCommit + "}]\n",
		},
		{
			"adds behind flow mappings",
			"service: a\nactivations:\n  - {scope: staging, release: latest}\n",
			"prod", newCommit, "",
			"service: a\nactivations:\n  - {scope: staging, release: latest}\n  - scope: prod\n    release: " + newCommit + "\n",
		},
		{
			"keeps CRLF",
			"service: a\r\nactivations:\r\n  - scope: prod\r\n    release: latest\r\n",
			"prod", newCommit, newDigest,
			"service: a\r\nactivations:\r\n  - scope: prod\r\n    release: " + newCommit + "\r\n    expect: " + newDigest + "\r\n",
		},
		{
			"changes nothing when nothing changes",
			head + "  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n",
			"prod", newCommit, newDigest,
			head + "  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Promote([]byte(c.in), api.Scope(c.scope), c.release, api.Digest(c.expect))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			again, err := Promote(got, api.Scope(c.scope), c.release, api.Digest(c.expect))
			if err != nil || string(again) != c.want {
				t.Errorf("a second time: %v\n%s", err, again)
			}
		})
	}
}

func TestPromoteRefuses(t *testing.T) {
	const one = "activations:\n  - scope: prod\n    release: latest\n"
	for _, c := range []struct{ name, in, scope, release, expect, want string }{
		{"a bad scope", one, "Prod", newCommit, "", "not a valid name"},
		{"a short commit", one, "prod", "4f2a9c", "", "40 lower-case hex"},
		{"a bad digest", one, "prod", newCommit, "sha256:12", "digest"},
		{"expect beside latest", one, "prod", "latest", newDigest, "choose one"},
		{"a retired service", "retired: true\n", "prod", newCommit, "", "retired"},
		{"a scope twice", one + "  - scope: prod\n    release: latest\n", "prod", newCommit, "", "twice"},
		{"an entry without release", "activations:\n  - scope: prod\n", "prod", newCommit, "", "no release"},
		{"a flow list to add to", "activations: [{scope: staging, release: latest}]\n", "prod", newCommit, "", "one dash"},
		{"a list of text", "activations: [prod]\n", "prod", newCommit, "", "must be a mapping"},
		{"no mapping", "- a\n", "prod", newCommit, "", "not an activation file"},
		{"no YAML", "a: [\n", "prod", newCommit, "", "line"},
		{"an alias", "x: &r latest\nactivations:\n  - scope: prod\n    release: *r\n", "prod", newCommit, "", "plainly"},
		{"a block scalar", "activations:\n  - scope: prod\n    release: >-\n      latest\n", "prod", newCommit, "", "plainly"},
		{"nothing", "", "prod", newCommit, "", "not an activation file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Promote([]byte(c.in), api.Scope(c.scope), c.release, api.Digest(c.expect))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func FuzzPromote(f *testing.F) {
	f.Add("activations:\n  - scope: prod\n    release: latest\n", true)
	f.Add("activations: [{scope: prod, expect: "+oldDigest+", release: latest}]\n", false)
	f.Add("# é\r\nactivations:\r\n- expect: '"+oldDigest+"'\r\n  # why\r\n  scope: prod\r\n  release: latest # x\r\n- {scope: staging,\r\n   release: latest}", false)
	f.Fuzz(func(t *testing.T, in string, pin bool) {
		release, expect := ReleaseLatest, api.Digest("")
		if pin {
			release, expect = newCommit, newDigest
		}
		out, err := Promote([]byte(in), "prod", release, expect)
		if err != nil {
			return
		}
		if lost := lostLines(in, string(out)); len(lost) > 3 {
			t.Errorf("%q are not in\n%q", lost, out)
		}
		if again, err := Promote(out, "prod", release, expect); err != nil || string(again) != string(out) {
			t.Errorf("not stable: %v\n%q\n%q", err, out, again)
		}
	})
}

// Hostile files are edited right or not at all. An edit touches the lines of
// its entry and adds lines; every other line stays, byte for byte, in its place.
func TestPromoteNeverCorrupts(t *testing.T) {
	const entry = "  - scope: prod\n    release: latest\n"
	for _, c := range []struct{ name, in, want string }{ // want "" is an error
		{"a BOM", "\ufeffactivations:\n" + entry, "\ufeffactivations:\n  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n"},
		{"line ends that differ", "service: a\r\n# one\nactivations:\n" + entry, "service: a\r\n# one\nactivations:\n  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\r\n"},
		{"lone carriage returns", "activations:\r  - scope: prod\r    release: latest\r", ""},
		{"a line separator of Unicode", "service: \"a\u2028b\"\nactivations:\n" + entry, ""},
		{"a next line in a comment", "# a\u0085b: c\nactivations:\n" + entry, ""},
		{"tabs behind values", "activations:\n  - scope: prod\t# x\n    release: latest\t\n", "activations:\n  - scope: prod\t# x\n    release: " + newCommit + "\t\n    expect: " + newDigest + "\n"},
		{"a tab as indentation", "activations:\n\t- scope: prod\n\t  release: latest\n", ""},
		{"an anchor on the release", "activations:\n  - scope: prod\n    release: &r latest\n", ""},
		{"an anchor on the entry", "activations:\n  - &a\n    scope: prod\n    release: latest\n  - *a\n", ""},
		{"a merge key", "x: &x {release: latest}\nactivations:\n  - <<: *x\n    scope: prod\n", ""},
		{"a tag", "activations:\n  - scope: prod\n    release: !!str latest\n", ""},
		{"a release twice", "activations:\n  - scope: prod\n    release: latest\n    release: latest\n", ""},
		{"activations twice", "activations:\n" + entry + "activations: []\n", ""},
		{"two documents", "activations:\n" + entry + "---\na: 1\n", "activations:\n  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n---\na: 1\n"},
		{"a flow mapping over lines", "activations:\n  - {scope: prod,\n     release: latest\n    }\n", "activations:\n  - {scope: prod,\n     release: " + newCommit + ", expect: " + newDigest + "\n    }\n"},
		{"JSON", `{"activations": [{"scope": "prod", "release": "latest"}]}`, `{"activations": [{"scope": "prod", "release": "` + newCommit + `", expect: ` + newDigest + "}]}"},
		{"a release in another entry's comment", "activations:\n  - scope: staging # release: latest\n    release: latest\n" + entry, "activations:\n  - scope: staging # release: latest\n    release: latest\n  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n"},
		{"escapes", "activations:\n  - scope: \"\\x70rod\"\n    release: \"l\\x61test\"\n", ""},
		{"a quoted scope", "activations:\n  - scope: 'prod'\n    release: 'latest'", "activations:\n  - scope: 'prod'\n    release: '" + newCommit + "'\n    expect: " + newDigest + "\n"},
		{"a comment under the entry", "activations:\n" + entry + "    # why\n\n# the end", "activations:\n  - scope: prod\n    release: " + newCommit + "\n    expect: " + newDigest + "\n    # why\n\n# the end"},
		{"a key of two lines", "activations:\n  - ? scope\n    : prod\n    ? release\n    : latest\n", ""},
		{"a value on the next line", "activations:\n  - scope: prod\n    release:\n      latest\n", "activations:\n  - scope: prod\n    release:\n      " + newCommit + "\n    expect: " + newDigest + "\n"},
		{"NUL", "activations:\n" + entry + "# \x00\n", ""},
		{"no UTF-8", "activations:\n" + entry + "# \xff\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Promote([]byte(c.in), "prod", newCommit, newDigest)
			if (err != nil) != (c.want == "") || string(got) != c.want {
				t.Errorf("got %v\n%q\nwant\n%q", err, got, c.want)
			}
		})
	}
}

// lostLines are lines of a text that another one has not, in their order.
func lostLines(in, out string) (lost []string) {
	for line := range strings.SplitSeq(in, "\n") {
		_, rest, found := strings.Cut("\n"+out, "\n"+line)
		if !found {
			lost = append(lost, line)
			continue
		}
		out = rest
	}
	return lost
}

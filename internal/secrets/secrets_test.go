package secrets_test

import (
	"strings"
	"testing"

	"github.com/sealstone/sealstone/internal/secrets"
)

func TestInSaysWhereAndOfWhatKind(t *testing.T) {
	key := "AKIA" + "ABCDEFGHIJKLMNOP"
	for _, c := range []struct {
		v           any
		place, what string
	}{
		{map[string]any{"note": "all is well", "n": 3.0}, "", ""},
		{map[string]any{"note": "use " + key}, "detail.note", "an AWS access key"},
		{map[string]any{"a": []any{"x", map[string]any{"b": key}}}, "detail.a.b", "an AWS access key"},
		{map[string]any{"z": key, "a": "-----BEGIN OPENSSH " + "PRIVATE KEY-----"}, "detail.a", "a private key"},
		{map[string]any{key: "x"}, "detail", "an AWS access key"},
		{key, "detail", "an AWS access key"},
		{nil, "", ""},
	} {
		place, what := secrets.In("detail", c.v)
		if place != c.place || what != c.what || strings.Contains(place+what, key) {
			t.Errorf("%v: %q, %q", c.v, place, what)
		}
	}
}

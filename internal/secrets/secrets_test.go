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
		{"sst_" + strings.Repeat("aB3_-", 8) + "xyz", "detail", "a Sealstone token"},
		{"postgres://u:p4ss@db.internal/x", "detail", "a URL with a password"},
		{"see redis://:p4ss@cache:6379", "detail", "a URL with a password"},
		{"postgres://u:${PASSWORD}@db", "detail", ""},
		{"https://{{user}}:{{password}}@db/x https://u:<password>@h https://u:%s@h https://u:***@h", "detail", ""},
		{"ssh://git@github.com:22/a http://host:8080/@scope/b?x=a@b mailto:a@b", "detail", ""},
		{nil, "", ""},
	} {
		place, what := secrets.In("detail", c.v)
		if place != c.place || what != c.what || strings.Contains(place+what, key) {
			t.Errorf("%v: %q, %q", c.v, place, what)
		}
	}
}

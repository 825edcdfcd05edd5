package bundler_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

const (
	http = "services/checkout/config/http.yaml"
	flag = "services/checkout/flags/flags.yaml"
	act  = "activations/checkout.yaml"
	meta = "services/checkout/service.yaml"
	over = "services/checkout/overlays/prod/config/http.yaml"
	mode = "services/checkout/safe-modes/degraded/"
	free = "services/checkout/config/free.yaml" // bound to none by with()
)

// ruleCases has for each rule the smallest changes to the shop that break it,
// and where the fault must be.
var ruleCases = []struct {
	name   string
	change map[string]string
	want   []string // "file:line:col RULE"
}{
	{"no sealstone.yaml", map[string]string{"sealstone.yaml": ""}, []string{"sealstone.yaml:0:0 E_SEALSTONE_MISSING"}},
	{"an unknown contract", map[string]string{"sealstone.yaml": "version: 2\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1]\n"}, []string{"sealstone.yaml:1:1 E_VERSION"}},
	{"sealstone.yaml without scopes", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env]\n"}, []string{"sealstone.yaml:1:1 E_FILE_FORMAT"}},
	{"too deep a scope", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env]\nscopes: [staging, prod, prod/eu-west-1]\n"}, []string{"sealstone.yaml:3:25 E_SCOPE_DEPTH"}},
	{"an overlay far too deep", map[string]string{"services/checkout/overlays/prod/b/c/d/e/f/g/h/i/config/http.yaml": "timeout: 3\n"}, []string{"services/checkout/overlays/prod/b/c/d/e/f/g/h/i:0:0 E_SCOPE_DEPTH"}},
	{"a scope twice", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env, region]\nscopes: [staging, prod, prod/eu-west-1, prod]\n"}, []string{"sealstone.yaml:3:41 E_SCOPE_TWICE"}},
	{"a reserved name in a scope", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env, region]\nscopes: [staging, prod, prod/eu-west-1, prod/flags]\n"}, []string{"sealstone.yaml:3:41 E_NAME"}},
	{"an idle scope", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env, region]\nscopes: [staging, prod, prod/eu-west-1, lab]\n"}, []string{"sealstone.yaml:3:41 W_SCOPE_IDLE"}},

	{"an unknown file in a service", map[string]string{"services/checkout/notes.txt": "x"}, []string{"services/checkout/notes.txt:0:0 E_FILE_UNKNOWN"}},
	{"service.yml", map[string]string{"services/checkout/service.yml": "owner: x"}, []string{"services/checkout/service.yml:0:0 E_FILE_UNKNOWN"}},
	{"an unknown folder in a service", map[string]string{"services/checkout/overlay/prod/config/http.yaml": "timeout: 1\n"}, []string{"services/checkout/overlay:0:0 E_FILE_UNKNOWN"}},
	{"an unknown file in config", map[string]string{"services/checkout/config/a.toml": "x"}, []string{"services/checkout/config/a.toml:0:0 E_FILE_UNKNOWN"}},
	{"a folder in config", map[string]string{"services/checkout/config/sub/a.yaml": "a: 1\n"}, []string{"services/checkout/config/sub:0:0 E_FILE_UNKNOWN"}},
	{"an unknown file in common", map[string]string{"common/safe-modes/x/safe-mode.yaml": "x"}, []string{"common/safe-modes:0:0 E_FILE_UNKNOWN"}},
	{"an unknown file in activations", map[string]string{"activations/checkout.yml": "x"}, []string{"activations/checkout.yml:0:0 E_FILE_UNKNOWN"}},
	{"an unknown file in schemas", map[string]string{"schemas/a.json": "{}"}, []string{"schemas/a.json:0:0 E_FILE_UNKNOWN"}},
	{"a file in services", map[string]string{"services/a.yaml": "x"}, []string{"services/a.yaml:0:0 E_FILE_UNKNOWN"}},
	{"a file in overlays", map[string]string{"services/checkout/overlays/prod/http.yaml": "x: 1"}, []string{"services/checkout/overlays/prod/http.yaml:0:0 E_FILE_UNKNOWN"}},
	{"notes are welcome", map[string]string{"services/checkout/README.md": "x", "services/checkout/config/.gitkeep": " ", "services/README.md": "x", "docs/x.txt": "x", "README.md": "x", "Makefile": "x"}, nil},
	{"a near miss at the root", map[string]string{"service/a/service.yaml": "x", "sealstone.yml": "x", "Schemas/a.json": "{}", "client.yaml": "x"}, []string{
		"Schemas:0:0 E_FILE_NEAR_MISS", "client.yaml:0:0 E_FILE_NEAR_MISS", "sealstone.yml:0:0 E_FILE_NEAR_MISS", "service:0:0 E_FILE_NEAR_MISS", "schemas:0:0 E_CASE_CLASH",
	}},
	{"a bad document name", map[string]string{"services/checkout/config/Http.yaml": "a: 1\n"}, []string{"services/checkout/config/Http.yaml:0:0 E_FILE_NAME", "services/checkout/config/http.yaml:0:0 E_CASE_CLASH"}},
	{"a bad service name", map[string]string{"services/Check_out/service.yaml": "owner: x\n"}, []string{"services/Check_out:0:0 E_NAME"}},
	{"a reserved mode", map[string]string{"services/checkout/safe-modes/normal/safe-mode.yaml": "description: x\nowner: y\n"}, []string{"services/checkout/safe-modes/normal:0:0 E_NAME"}},
	{"a document twice", map[string]string{"services/checkout/config/http.json": "{}"}, []string{"services/checkout/config/http.yaml:0:0 E_FILE_TWICE"}},
	{"a symbolic link", map[string]string{"services/checkout/config/x.yaml@link": "http.yaml"}, []string{"services/checkout/config/x.yaml:0:0 E_SYMLINK"}},
	{"a link as a root file", map[string]string{"clients.yaml@link": "x"}, []string{"clients.yaml:0:0 E_SYMLINK"}},
	{"a submodule", map[string]string{"services/checkout/vendor@module": "x"}, []string{"services/checkout/vendor:0:0 E_SUBMODULE"}},
	{"an executable is a file", map[string]string{"services/checkout/overlays/staging/config/http.yaml@exec": "timeout: 29\n"}, nil},
	{"an LFS pointer", with(free, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), []string{free + ":1:1 E_LFS_POINTER"}},
	{"a byte order mark", with(free, "\xef\xbb\xbfa: 1\n"), []string{free + ":1:1 E_ENCODING"}},
	{"a NUL", with(free, "a: 1\nb: \x00\n"), []string{free + ":2:4 E_ENCODING"}},
	{"invalid UTF-8", with(free, "a: \"ö\xff\"\n"), []string{free + ":1:6 E_ENCODING"}},
	{"UTF-16", with(free, "\xff\xfea\x00"), []string{free + ":1:4 E_ENCODING"}},
	{"a large file", with(free, "a: "+strings.Repeat("x", 1<<20)), []string{free + ":0:0 E_LIMIT_FILE"}},
	{"deep nesting", with(free, "a: "+strings.Repeat("[", 70)+strings.Repeat("]", 70)+"\n"), []string{free + ":1:67 E_LIMIT_DEPTH"}},
	{"very deep nesting", with(free, strings.Repeat("[", 9000)), []string{free + ":1:4097 E_LIMIT_DEPTH"}},
	{"deep nesting in JSON", map[string]string{"services/checkout/config/x.json": strings.Repeat("[", 70) + strings.Repeat("]", 70)}, []string{"services/checkout/config/x.json:1:65 E_LIMIT_DEPTH"}},
	{"gitattributes", map[string]string{".gitattributes": "*.png filter=lfs\n*.yaml text eol=crlf\n", "services/checkout/.gitattributes": "* ident\n"}, []string{".gitattributes:2:1 W_GITATTRIBUTES", "services/checkout/.gitattributes:1:1 W_GITATTRIBUTES"}},
	{"no service.yaml", map[string]string{"services/cart/config/a.yaml": "a: 1\n"}, []string{"services/cart/service.yaml:0:0 E_FILE_MISSING", "services/cart/config/a.yaml:0:0 E_SCHEMA_BINDING"}},
	{"no safe-mode.yaml", map[string]string{mode + "safe-mode.yaml": ""}, []string{mode + "safe-mode.yaml:0:0 E_FILE_MISSING"}},
	{"an unknown member of service.yaml", map[string]string{meta: "owner: x\nschemas:\n  config/http: http\nownr: y\n"}, []string{meta + ":4:1 E_FILE_FORMAT", http + ":0:0 E_SCHEMA_BINDING"}},

	{"YAML syntax", with(free, "a: [1\nb: 2\n"), []string{free + ":1:1 E_YAML_SYNTAX"}},
	{"a tab", with(free, "a:\n\t- 1\n"), []string{free + ":2:1 E_YAML_SYNTAX"}},
	{"JSON syntax", map[string]string{"services/checkout/config/x.json": "{\"a\": 1,\n}"}, []string{"services/checkout/config/x.json:2:1 E_JSON_SYNTAX"}},
	{"a lone surrogate", map[string]string{"services/checkout/config/x.json": `{"a": "\ud800"}`}, []string{"services/checkout/config/x.json:1:8 E_JSON_SYNTAX"}},
	{"a duplicate key in JSON", map[string]string{"services/checkout/config/x.json": "{\"a\": 1,\n \"a\": 2}"}, []string{"services/checkout/config/x.json:2:2 E_DUPLICATE_KEY"}},
	{"a large number in JSON", map[string]string{"services/checkout/config/x.json": `{"a": 9007199254740992}`}, []string{"services/checkout/config/x.json:1:7 E_NUMBER_RANGE"}},
	{"a duplicate key", with(free, "a: 1\nb: 2\na: 3\n"), []string{free + ":3:1 E_DUPLICATE_KEY"}},
	{"an anchor and an alias", with(free, "a: &x 1\nb: *x\n"), []string{free + ":1:4 E_YAML_ANCHOR", free + ":2:4 E_YAML_ANCHOR"}},
	{"a merge key", with(free, "a: {b: 1}\n<<: {c: 2}\n"), []string{free + ":2:1 E_YAML_MERGE_KEY"}},
	{"a tag", with(free, "a: !!str 1\nb: !x z\nc: ! 12\n"), []string{free + ":1:4 E_YAML_TAG", free + ":2:4 E_YAML_TAG", free + ":3:4 E_YAML_TAG"}},
	{"two documents", with(free, "a: 1\n---\nb: 2\n"), []string{free + ":3:1 E_YAML_DOCUMENTS"}},
	{"a directive", with(free, "%YAML 1.1\n---\na: 1\n"), []string{free + ":1:1 E_YAML_DIRECTIVE"}},
	{"one document may be marked", with(free, "---\na: 1\n...\n"), nil},
	{"a key that is no string", with(free, "1: a\ntrue: b\nnull: c\n? [x]\n: d\n2026-01-01: e\n"), []string{
		free + ":1:1 E_YAML_KEY", free + ":2:1 E_YAML_KEY", free + ":3:1 E_YAML_KEY", free + ":4:3 E_YAML_KEY", free + ":6:1 E_YAML_KEY",
	}},
	{"numbers that don't print back", with(free, "- 0644\n- 0x1F\n- 1e3\n- 1_000\n- +1\n- .5\n- 5.\n- 0o17\n- 1:30\n- -0\n- 1.5e3\n- 08\n"), slices.Collect[string](func(yield func(string) bool) {
		for i := range 12 {
			yield(fmt.Sprintf("%s:%d:3 E_YAML_NUMBER", free, i+1))
		}
	})},
	{"dates", with(free, "- 2026-01-02\n- 2026-1-2\n- 2026-01-02T03:04:05Z\n- '2026-01-02'\n"), []string{free + ":1:3 E_YAML_DATE", free + ":2:3 E_YAML_DATE", free + ":3:3 E_YAML_DATE"}},
	{"booleans", with(free, "a: TRUE\nb: yes\nc: Off\nd: n\ny: 1\n"), []string{free + ":1:4 E_YAML_BOOL", free + ":2:4 E_YAML_BOOL", free + ":3:4 E_YAML_BOOL", free + ":4:4 E_YAML_BOOL", free + ":5:1 E_YAML_BOOL"}},
	{"empty values", with(free, "a:\nb: ~\nc: Null\n"), []string{free + ":1:3 E_YAML_EMPTY", free + ":2:4 E_YAML_EMPTY", free + ":3:4 E_YAML_EMPTY"}},
	{"an empty file", with(free, "# nothing\n"), []string{free + ":1:1 E_YAML_EMPTY"}},
	{"numbers out of range", with(free, "a: 9007199254740992\nb: .inf\nc: .NaN\nd: -9007199254740991\n"), []string{free + ":1:4 E_NUMBER_RANGE", free + ":2:4 E_NUMBER_RANGE", free + ":3:4 E_NUMBER_RANGE"}},
	{"a decimal without a schema", with(free, "a: 1.10\nb: 1.5\nc: '1.10'\nd: 3.0\n"), []string{free + ":1:1 W_DECIMAL", free + ":4:1 W_DECIMAL"}},
	{"strings that are fine", with(free, "- 1.2.3\n- 10.0.0.1\n- 12ab\n- -x\n- 25:61:99\n- a: b\n- 80/tcp\n- '0644'\n- v1\n- ..\n- -\n"), []string{free + ":11:4 E_YAML_EMPTY"}},

	{"a null in the lowest layer", with(free, "a: null\n"), []string{free + ":1:1 E_NULL"}},
	{"a null in a list", map[string]string{"services/checkout/overlays/staging/config/log.yaml": "x: [{a: null}, null]\n"}, []string{"services/checkout/overlays/staging/config/log.yaml:1:6 E_NULL"}},
	{"a document that is null", map[string]string{"services/checkout/overlays/staging/config/log.json": "null"}, []string{"services/checkout/overlays/staging/config/log.json:1:1 E_NULL"}},
	{"a null in a new document of a safe mode", gittest.With(with(free, ""), map[string]string{mode + "config/free.yaml": "a: {b: null}\n"}), []string{mode + "config/free.yaml:1:5 E_NULL"}},
	{"a secret", with(free, "a: AKIAABCDEFGHIJKLMNOP\nb: AKIAABCDEFGHIJKLMNOQ # not-a-secret: an example from the documentation\n"), []string{free + ":1:1 E_SECRET"}},
	{"a private key", with(free, "a: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  x\n"), []string{free + ":1:1 E_SECRET"}},
	{"a secret that the schema allows", map[string]string{
		"schemas/http.schema.json": `{"properties":{"note":{"type":"string","x-not-secret":true}}}`, http: "note: AKIAABCDEFGHIJKLMNOP\n",
	}, nil},
	{"an unknown member of a flags file", map[string]string{flag: "flag: {}\n", "services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": ""}, []string{flag + ":1:1 E_FLAG_FILE"}},
	{"a flag twice", map[string]string{"services/checkout/flags/more.yaml": "flags:\n  new-cart: {state: ENABLED, variants: {a: 1}, defaultVariant: a}\n"}, []string{"services/checkout/flags/more.yaml:2:3 E_FLAG_TWICE"}},
	{"an unknown member of a flag", map[string]string{"services/checkout/flags/more.yaml": "flags:\n  b: {state: ENABLED, variants: {a: 1}, defaultVariant: a, owner: x}\n"}, []string{"services/checkout/flags/more.yaml:2:60 E_FLAG_MEMBER"}},
	{"a null state", map[string]string{"services/checkout/overlays/staging/flags/x.yaml": "flags:\n  new-cart: {state: null}\n"}, []string{"services/checkout/overlays/staging/flags/x.yaml:2:14 E_NULL"}},
	{"an overlay of a flag that is gone", map[string]string{flag: "flags: {}\n"}, []string{"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml:2:3 E_FLAG_UNKNOWN"}},
	{"a safe mode removes a flag that is gone", map[string]string{mode + "flags/x.yaml": "flags: {old-cart: null}\n"}, []string{mode + "flags/x.yaml:1:9 E_FLAG_UNKNOWN"}},
	{"a default that is no variant", map[string]string{"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": "flags:\n  new-cart: {defaultVariant: maybe}\n"}, []string{"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml:2:14 E_FLAG"}},
	{"an unknown operator", map[string]string{"services/checkout/flags/more.yaml": "flags:\n  b:\n    state: ENABLED\n    variants: {a: 1}\n    defaultVariant: a\n    targeting:\n      nope: [1]\n"}, []string{"services/checkout/flags/more.yaml:7:7 E_FLAG"}},

	{"no schema", map[string]string{free: "a: 1\n"}, []string{free + ":0:0 E_SCHEMA_BINDING"}},
	{"two patterns", map[string]string{free: "a: 1\n", meta: "owner: x\nschemas:\n  config/http: http\n  config/f*: none\n  config/*e: none\n"}, []string{meta + ":4:3 E_SCHEMA_BINDING"}},
	{"an unknown schema", map[string]string{meta: "owner: x\nschemas:\n  config/http: htpt\n"}, []string{meta + ":3:3 E_SCHEMA_UNKNOWN"}},
	{"a file reference", map[string]string{"schemas/http.schema.json": `{"$ref": "file:///etc/passwd"}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_REF"}},
	{"a reference to the network", map[string]string{"schemas/http.schema.json": `{"properties": {"a": {"$ref": "https://example.com/a.json"}}}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_REF"}},
	{"a reference up the tree", map[string]string{"schemas/http.schema.json": `{"$ref": "../sealstone.yaml"}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_REF"}},
	{"a neighbour and a built-in schema", map[string]string{
		"schemas/http.schema.json": `{"properties":{"timeout":{"$ref":"seconds.schema.json"},"x":{"$ref":"targeting.schema.json"}}}`, "schemas/seconds.schema.json": `{"type":"integer"}`,
	}, nil},
	{"an invalid schema", map[string]string{"schemas/http.schema.json": `{"type": "strnig"}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_INVALID"}},
	{"a pattern that isn't RE2", map[string]string{"schemas/http.schema.json": `{"pattern": "(?=x)"}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_INVALID"}},
	{"a schema that isn't JSON", map[string]string{"schemas/other.schema.json": `{"a": 1, "a": 2}`}, []string{"schemas/other.schema.json:0:0 E_SCHEMA_INVALID"}},
	{"a schema that loops", map[string]string{"schemas/http.schema.json": `{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}`}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_INVALID"}},
	{"a schema bomb", map[string]string{"schemas/http.schema.json": schemaBomb(60)}, []string{"schemas/http.schema.json:0:0 E_SCHEMA_COST"}},
	{"a breach of the schema", map[string]string{over: "timeout: soon\n"}, []string{over + ":1:1 E_SCHEMA"}},
	{"an unknown member", map[string]string{http: "timeout: 1\nport: 2\nhosts: [a]\nprot: 3\n"}, []string{http + ":4:1 E_SCHEMA"}},
	{"a wrong element", map[string]string{http: "timeout: 1\nport: 2\nhosts:\n  - a\n  - 1\n"}, []string{http + ":5:5 E_SCHEMA"}},
	{"a member that only some layers give", map[string]string{http: "timeout: 2\n", over: "port: 3\n"}, []string{http + ":1:1 E_SCHEMA"}},
	{"a safe mode that breaks the schema", map[string]string{mode + "config/http.yaml": "timeout: null\n"}, []string{http + ":1:1 E_SCHEMA"}},
	{"an overlay that changes nothing", map[string]string{over: "timeout: 30\n"}, []string{over + ":0:0 W_OVERLAY_NO_EFFECT"}},
	{"a safe mode that changes nothing", map[string]string{mode + "flags/x.yaml": "flags: {new-cart: {state: ENABLED}}\n"}, []string{mode + "flags/x.yaml:0:0 W_OVERLAY_NO_EFFECT"}},

	{"an unlisted overlay", map[string]string{"services/checkout/overlays/prod/eu-west-2/config/http.yaml": "timeout: 7\n"}, []string{"services/checkout/overlays/prod/eu-west-2:0:0 E_SCOPE_UNLISTED"}},
	{"any pool may have an overlay", map[string]string{"services/checkout/overlays/prod/us-east-1/canary/config/http.yaml": "timeout: 7\n"}, nil},
	{"an unlisted overlay of common", map[string]string{"common/overlays/lab/config/log.yaml": "level: debug\n"}, []string{"common/overlays/lab:0:0 E_SCOPE_UNLISTED"}},
	{"an empty overlay doesn't count", map[string]string{"services/checkout/overlays/lab/README.md": "x"}, nil},
	{"an unlisted activation", map[string]string{act: "service: checkout\nactivations:\n  - {scope: staging, release: latest}\n  - {scope: prod, release: latest}\n  - {scope: prd, release: latest}\n"}, []string{act + ":5:6 E_SCOPE_UNLISTED"}},
	{"a dependency that isn't there", map[string]string{meta: "owner: x\ndepends_on: [stock]\nschemas: {config/http: http}\n"}, []string{meta + ":2:14 E_DEPENDS_ON"}},
	{"a long ttl", map[string]string{mode + "safe-mode.yaml": "description: x\nowner: y\nttl: 25h\n"}, []string{mode + "safe-mode.yaml:3:1 E_SAFE_MODE_TTL"}},
	{"an activation of another service", map[string]string{act: "service: cart\nactivations:\n  - {scope: staging, release: latest}\n"}, []string{act + ":1:1 E_ACTIVATION_SERVICE"}},
	{"a scope activated twice", map[string]string{act: "service: checkout\nactivations:\n  - {scope: staging, release: latest}\n  - {scope: staging, release: latest}\n  - {scope: prod, release: latest}\n"}, []string{act + ":4:6 E_ACTIVATION_TWICE"}},
	{"expect beside latest", map[string]string{act: "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n    expect: sha256:" + strings.Repeat("0", 64) + "\n"}, []string{act + ":5:5 E_FILE_FORMAT"}},
	{"retired with activations", map[string]string{act: "service: checkout\nretired: true\nactivations: []\n"}, []string{act + ":3:1 E_FILE_FORMAT"}},
	{"a service that isn't there", map[string]string{"activations/cart.yaml": "service: cart\nactivations:\n  - {scope: staging, release: latest}\n"}, []string{"activations/cart.yaml:3:6 E_SERVICE_UNKNOWN"}},
	{"a commit that isn't there", map[string]string{act: "service: checkout\nactivations:\n  - {scope: staging, release: " + strings.Repeat("ab", 20) + "}\n  - {scope: prod, release: latest}\n"}, []string{act + ":3:6 E_RELEASE_UNKNOWN"}},
	{"operators without a signature", map[string]string{"operators.yaml": operators(key(1))}, []string{"operators.yaml:0:0 E_OPERATORS_SIGNATURE"}},
	{"a signature that is for another file", map[string]string{"operators.yaml": operators(key(1)), "operators.sig": `{"payload":"e30=","signatures":[]}`}, []string{"operators.sig:0:0 E_OPERATORS_SIGNATURE"}},
	{"a bad key", map[string]string{"operators.yaml": operators("ssh-ed25519 AAAA"), "operators.sig": signature(operators("ssh-ed25519 AAAA"))}, []string{"operators.yaml:4:12 E_OPERATORS_KEY"}},
	{"a key twice", map[string]string{"operators.yaml": operators(key(1), key(1)), "operators.sig": signature(operators(key(1), key(1)))}, []string{"operators.yaml:7:12 E_OPERATORS_TWICE"}},
	{"good operators", map[string]string{"operators.yaml": operators(key(1), key(2)), "operators.sig": signature(operators(key(1), key(2)))}, nil},
	{"a client twice", map[string]string{"clients.yaml": "clients:\n  - {name: a, token: \"sha256:" + strings.Repeat("0", 64) + "\", services: ['*'], scopes: ['*']}\n  - {name: a, token: \"sha256:" + strings.Repeat("0", 64) + "\", services: ['*'], scopes: ['*']}\n"}, []string{"clients.yaml:3:6 E_CLIENT_TWICE", "clients.yaml:3:15 E_CLIENT_TWICE"}},
	{"an unsigned commit", map[string]string{"sealstone.yaml": "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1]\nsource:\n  require_signed: true\n"}, []string{"sealstone.yaml:5:3 E_UNSIGNED"}},
	{"recorded contexts", map[string]string{"tests/contexts/checkout.jsonl": `{"flag":"new-cart","context":{"country":"NL"}}` + "\n\n" + `{"type":"boolean","context":{}}` + "\n"}, nil},
	{"contexts of another form", map[string]string{"tests/contexts/checkout.jsonl": `{"context":{}}` + "\n" + `{"flag":1,"context":{}}` + "\n" + `{"context":{}, "extra":1}` + "\n{}\n" + `{"context":{"a":1,"a":2}}` + "\nx\n", "tests/contexts/x.json": "x"}, []string{
		"tests/contexts/checkout.jsonl:2:2 E_CONTEXTS", "tests/contexts/checkout.jsonl:3:16 E_CONTEXTS", "tests/contexts/checkout.jsonl:4:1 E_CONTEXTS",
		"tests/contexts/checkout.jsonl:5:19 E_DUPLICATE_KEY", "tests/contexts/checkout.jsonl:6:1 E_JSON_SYNTAX", "tests/contexts/x.json:0:0 E_FILE_UNKNOWN",
	}},
	{"files of other kinds at the root", map[string]string{"clients.yaml/a": "x", "operators.yaml@link": "x", "operators.sig@module": "x", "schemas": "x", "schemas/http.schema.json": "", "tests@link": "x", meta: "owner: x\nschemas: {config/http: none}\n"}, []string{
		"clients.yaml:0:0 E_FILE_UNKNOWN", "operators.sig:0:0 E_SUBMODULE", "operators.yaml:0:0 E_SYMLINK", "schemas:0:0 E_FILE_UNKNOWN", "tests:0:0 E_SYMLINK",
	}},
	{"a token in the clear", map[string]string{"clients.yaml": "clients:\n  - {name: a, token: hunter2, services: ['*'], scopes: ['*']}\n"}, []string{"clients.yaml:2:15 E_FILE_FORMAT"}},
}

// with binds config/free to no schema and gives it a text.
func with(path, content string) map[string]string {
	return map[string]string{path: content, meta: "owner: team-pay\nschemas:\n  config/http: http\n  config/free: none\n"}
}

func schemaBomb(levels int) string {
	var b strings.Builder
	b.WriteString(`{"$ref":"#/$defs/a0","$defs":{`)
	for i := range levels {
		fmt.Fprintf(&b, `"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"a%d":{"minProperties":0}}}`, levels)
	return b.String()
}

func key(n byte) string {
	wire := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), slices.Repeat([]byte{n}, 32)...)
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(wire)
}

func operators(keys ...string) string {
	out := "version: 1\noperators:\n"
	for i, k := range keys {
		out += fmt.Sprintf("  - id: op%d\n    keys: [\"%s\"]\n    may: [{do: [safe-mode], services: [\"*\"], scopes: [prod]}]\n", i, k)
	}
	return out
}

func TestRules(t *testing.T) {
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			b, commit := open(t, gittest.With(shop(), c.change))
			rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := spots(rep.Faults); !slices.Equal(got, sorted(c.want)) {
				t.Errorf("faults\n  %s\nwant\n  %s\n\n%v", strings.Join(got, "\n  "), strings.Join(sorted(c.want), "\n  "), rep.Faults)
			}
			again, _ := b.Check(context.Background(), commit, bundler.CheckOptions{})
			if got, want := fmt.Sprint(again.Faults), fmt.Sprint(rep.Faults); got != want {
				t.Errorf("a second check says\n%s\nthe first said\n%s", got, want)
			}
		})
	}
}

func spots(fs bundler.Faults) []string {
	var out []string
	for _, f := range fs {
		out = append(out, fmt.Sprintf("%s:%d:%d %s", f.File, f.Line, f.Col, f.Rule))
		if f.Message == "" || f.Fix == "" {
			out = append(out, "no message or fix")
		}
	}
	return sorted(out)
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func signature(file string) string {
	statement := fmt.Sprintf(`{"sha256":"%s"}`, api.DigestOf([]byte(file)))
	return fmt.Sprintf(`{"payload":"%s","payloadType":"application/vnd.sealstone.statement.v1+json","signatures":[]}`, base64.StdEncoding.EncodeToString([]byte(statement)))
}

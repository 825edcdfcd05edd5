// Package secrets tells credentials by their form: what must be neither in a
// bundle, which every client of its scope can read, nor in a ledger, which never
// forgets.
package secrets

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Rule is the id under which a find is reported.
const Rule = "E_SECRET"

// Shapes are kinds of credentials.
type Shapes []shape

// A shape is a kind of credential that can be told by its form. mark is text
// that every one of them holds: texts without any mark, which is nearly all, are
// passed over at the speed of a string search.
type shape struct {
	what, mark string
	form       *regexp.Regexp
}

func of(what, mark, form string) shape { return shape{what, mark, regexp.MustCompile(form)} }

// all is the whole list; docs/config-repository.md repeats it.
var all = Shapes{
	of("a private key", "PRIVATE KEY", `-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----`),
	of("an age secret key", "AGE-SECRET-KEY-1", `AGE-SECRET-KEY-1[0-9A-Z]{58}`),
	of("an AWS access key", "AKIA", `\bAKIA[0-9A-Z]{16}\b`),
	of("an AWS access key", "ASIA", `\bASIA[0-9A-Z]{16}\b`),
	of("an Azure storage key", "AccountKey=", `AccountKey=[A-Za-z0-9+/]{86}==`),
	of("a DigitalOcean token", "dop_v1_", `\bdop_v1_[0-9a-f]{64}\b`),
	of("a GitHub token", "gh", `\bgh[pousr]_[A-Za-z0-9]{36,}\b`),
	of("a GitHub token", "github_pat_", `\bgithub_pat_[A-Za-z0-9_]{22,}\b`),
	of("a GitLab token", "glpat-", `\bglpat-[A-Za-z0-9_-]{20,}`),
	of("a Google API key", "AIza", `\bAIza[0-9A-Za-z_-]{35}`),
	of("a Google OAuth token", "ya29.", `\bya29\.[0-9A-Za-z_-]{20,}`),
	of("a Hugging Face token", "hf_", `\bhf_[A-Za-z0-9]{34}\b`),
	of("a JSON Web Token", "eyJ", `\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`),
	of("an npm token", "npm_", `\bnpm_[A-Za-z0-9]{36}\b`),
	of("an Anthropic key", "sk-ant-", `\bsk-ant-[A-Za-z0-9_-]{20,}`),
	of("an OpenAI key", "sk-", `\bsk-(proj-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})`),
	of("a PyPI token", "pypi-AgE", `\bpypi-AgE[A-Za-z0-9_-]{50,}`),
	of("a Sealstone token", "sst_", `\bsst_[A-Za-z0-9_-]{43}`),
	of("a SendGrid key", "SG.", `\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}`),
	of("a Shopify token", "shp", `\bshp(at|ca|pa|ss)_[0-9a-fA-F]{32}\b`),
	of("a Slack token", "xox", `\bxox[abeprs]-[A-Za-z0-9-]{10,}`),
	of("a Slack webhook", "hooks.slack.com/services/", `hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}`),
	of("a Stripe key", "_live_", `\b(sk|rk)_live_[0-9A-Za-z]{20,}`),
	of("a URL with a password", "://", `\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@"'<>]*:[^\s/?#@"'<>${%*][^\s/?#@"'<>]*@[^\s/@]`), // ${VAR}, {{var}}, <password>, %s and *** are places for one
	of("a Vault token", "hvs.", `\bhvs\.[A-Za-z0-9_-]{24,}`),
}

// Likely are the kinds whose mark is in a text; nil for nearly every one.
func Likely(text []byte) (out Shapes) {
	for _, s := range all {
		if bytes.Contains(text, []byte(s.mark)) {
			out = append(out, s)
		}
	}
	return out
}

// Find tells what kind of credential a text holds; "" when it holds none.
func (list Shapes) Find(text string) string {
	for _, s := range list {
		if strings.Contains(text, s.mark) && s.form.MatchString(text) {
			return s.what
		}
	}
	return ""
}

// In looks through a JSON value, keys too, and says where a credential is and of
// what kind; "" when there is none.
func In(where string, v any) (place, what string) {
	switch v := v.(type) {
	case string:
		return where, all.Find(v)
	case []any:
		for _, e := range v {
			if place, what = In(where, e); what != "" {
				return place, what
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if what = all.Find(k); what != "" {
				return where, what // a key that is one isn't repeated
			}
			if place, what = In(fmt.Sprintf("%s.%.64s", where, k), v[k]); what != "" {
				return place, what
			}
		}
	}
	return "", ""
}

// Kinds lists what is recognised, for the documentation.
func Kinds() []string {
	var out []string
	for _, s := range all {
		if n := len(out); n == 0 || out[n-1] != s.what {
			out = append(out, s.what)
		}
	}
	return out
}

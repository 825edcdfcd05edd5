package bundler

import (
	"bytes"
	"regexp"
	"strings"
)

// A secret is a value that has the shape of one and no remark that it is none.
type secret struct {
	at    place
	value string
	what  string
}

// A secretShape is a kind of credential that can be told by its form. mark is
// text that every one of them holds: files without any mark, which is nearly
// all, are passed over at the speed of a string search.
type secretShape struct {
	what, mark string
	form       *regexp.Regexp
}

func shape(what, mark, form string) secretShape {
	return secretShape{what, mark, regexp.MustCompile(form)}
}

// secretShapes is the whole list; docs/config-repository.md repeats it.
var secretShapes = []secretShape{
	shape("a private key", "PRIVATE KEY", `-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----`),
	shape("an age secret key", "AGE-SECRET-KEY-1", `AGE-SECRET-KEY-1[0-9A-Z]{58}`),
	shape("an AWS access key", "AKIA", `\bAKIA[0-9A-Z]{16}\b`),
	shape("an AWS access key", "ASIA", `\bASIA[0-9A-Z]{16}\b`),
	shape("an Azure storage key", "AccountKey=", `AccountKey=[A-Za-z0-9+/]{86}==`),
	shape("a DigitalOcean token", "dop_v1_", `\bdop_v1_[0-9a-f]{64}\b`),
	shape("a GitHub token", "gh", `\bgh[pousr]_[A-Za-z0-9]{36,}\b`),
	shape("a GitHub token", "github_pat_", `\bgithub_pat_[A-Za-z0-9_]{22,}\b`),
	shape("a GitLab token", "glpat-", `\bglpat-[A-Za-z0-9_-]{20,}`),
	shape("a Google API key", "AIza", `\bAIza[0-9A-Za-z_-]{35}`),
	shape("a Google OAuth token", "ya29.", `\bya29\.[0-9A-Za-z_-]{20,}`),
	shape("a Hugging Face token", "hf_", `\bhf_[A-Za-z0-9]{34}\b`),
	shape("a JSON Web Token", "eyJ", `\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`),
	shape("an npm token", "npm_", `\bnpm_[A-Za-z0-9]{36}\b`),
	shape("an Anthropic key", "sk-ant-", `\bsk-ant-[A-Za-z0-9_-]{20,}`),
	shape("an OpenAI key", "sk-", `\bsk-(proj-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})`),
	shape("a PyPI token", "pypi-AgE", `\bpypi-AgE[A-Za-z0-9_-]{50,}`),
	shape("a SendGrid key", "SG.", `\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}`),
	shape("a Shopify token", "shp", `\bshp(at|ca|pa|ss)_[0-9a-fA-F]{32}\b`),
	shape("a Slack token", "xox", `\bxox[abeprs]-[A-Za-z0-9-]{10,}`),
	shape("a Slack webhook", "hooks.slack.com/services/", `hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}`),
	shape("a Stripe key", "_live_", `\b(sk|rk)_live_[0-9A-Za-z]{20,}`),
	shape("a Vault token", "hvs.", `\bhvs\.[A-Za-z0-9_-]{24,}`),
}

// SecretKinds lists what the secret rule recognises, for the documentation.
func SecretKinds() []string {
	var out []string
	for _, s := range secretShapes {
		if n := len(out); n == 0 || out[n-1] != s.what {
			out = append(out, s.what)
		}
	}
	return out
}

// findSecrets looks at every string of a file, keys too.
func findSecrets(file string, raw []byte, root *node) []secret {
	var likely []secretShape
	for _, s := range secretShapes {
		if bytes.Contains(raw, []byte(s.mark)) {
			likely = append(likely, s)
		}
	}
	if likely == nil {
		return nil
	}
	h := hunt{likely: likely, allowed: allowedLines(file, raw)}
	root.walk(h.visit)
	return h.found
}

type hunt struct {
	likely  []secretShape
	allowed map[int32]bool
	found   []secret
}

func (h *hunt) visit(n *node) {
	if n.kind == kindString {
		h.look(n.str, n.at)
	}
	for _, f := range n.fields {
		h.look(f.name, f.val.at)
	}
}

func (h *hunt) look(s string, at place) {
	if h.allowed[at.line] {
		return
	}
	for _, l := range h.likely {
		if strings.Contains(s, l.mark) && l.form.MatchString(s) {
			h.found = append(h.found, secret{at, s, l.what})
			return
		}
	}
}

var notSecret = regexp.MustCompile(`(?:^|\s)# not-a-secret: \S`)

// allowedLines are those with a remark that says why a value is no secret.
// JSON has no comments and so no remarks.
func allowedLines(file string, raw []byte) map[int32]bool {
	if strings.HasSuffix(file, ".json") || !bytes.Contains(raw, []byte("not-a-secret:")) {
		return nil
	}
	allowed, line := map[int32]bool{}, int32(0)
	for text := range bytes.Lines(raw) {
		line++
		if notSecret.Match(text) {
			allowed[line] = true
		}
	}
	return allowed
}

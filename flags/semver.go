package flags

import (
	"cmp"
	"strings"
)

// A version is a semantic version, split but not converted: its numbers have any
// size. Build metadata orders nothing and is dropped.
type version struct {
	major, minor, patch, pre string
}

// parseVersion reads "1.2.3-pre+build", one v or V in front passed over. "1" and
// "1.2" are filled up, but only when nothing follows.
func parseVersion(s string) (v version, ok bool) {
	if s != "" && (s[0] == 'v' || s[0] == 'V') {
		s = s[1:]
	}
	v.minor, v.patch = "0", "0"
	if v.major, s, ok = versionNumber(s); !ok || s == "" {
		return v, ok
	}
	if v.minor, s, ok = nextNumber(s); !ok || s == "" {
		return v, ok
	}
	if v.patch, s, ok = nextNumber(s); !ok {
		return v, false
	}
	rest, build, hasBuild := strings.Cut(s, "+")
	if hasBuild && !identifiers(build, true) {
		return v, false
	}
	if rest == "" {
		return v, true
	}
	v.pre = rest[1:]
	return v, rest[0] == '-' && identifiers(v.pre, false)
}

func nextNumber(s string) (string, string, bool) {
	if s[0] != '.' {
		return "", s, false
	}
	return versionNumber(s[1:])
}

func versionNumber(s string) (number, rest string, ok bool) {
	n := digitsOf(s)
	return s[:n], s[n:], n > 0 && (n == 1 || s[0] != '0')
}

// identifiers checks dot-separated identifiers; those of a pre-release have no
// leading zeros when they are numbers.
func identifiers(s string, zeros bool) bool {
	for {
		id, rest, more := strings.Cut(s, ".")
		if id == "" || !zeros && isNumber(id) && len(id) > 1 && id[0] == '0' {
			return false
		}
		for i := range len(id) {
			if c := id[i]; c != '-' && !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z') {
				return false
			}
		}
		if !more {
			return true
		}
		s = rest
	}
}

func isNumber(s string) bool { return digitsOf(s) == len(s) }

func compareVersions(a, b *version) int {
	if c := compareNumbers(a.major, b.major); c != 0 {
		return c
	}
	if c := compareNumbers(a.minor, b.minor); c != 0 {
		return c
	}
	if c := compareNumbers(a.patch, b.patch); c != 0 {
		return c
	}
	return comparePre(a.pre, b.pre)
}

// compareNumbers orders digits without leading zeros by value.
func compareNumbers(a, b string) int {
	if len(a) != len(b) {
		return cmp.Compare(len(a), len(b))
	}
	return strings.Compare(a, b)
}

// comparePre orders pre-releases; having none comes last.
func comparePre(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		if c := compareIdentifiers(x, y); c != 0 {
			return c
		}
		if !moreA || !moreB {
			return cmp.Compare(len(restA), len(restB))
		}
		a, b = restA, restB
	}
}

// compareIdentifiers orders numbers before words.
func compareIdentifiers(a, b string) int {
	switch m, n := isNumber(a), isNumber(b); {
	case m && n:
		return compareNumbers(a, b)
	case m:
		return -1
	case n:
		return 1
	}
	return strings.Compare(a, b)
}

// A versionTest is an operator of sem_ver. ^ and ~ compare the first one and two
// numbers: they are not the ranges npm means by them. It is a number and not a
// function so that the versions it compares stay on the stack.
type versionTest uint8

const (
	_ versionTest = iota
	sameVersion
	otherVersion
	olderVersion
	upToVersion
	newerVersion
	sinceVersion
	sameMajor
	sameMinor
)

var versionTests = map[string]versionTest{
	"=": sameVersion, "!=": otherVersion, "<": olderVersion, "<=": upToVersion,
	">": newerVersion, ">=": sinceVersion, "^": sameMajor, "~": sameMinor,
}

func (t versionTest) holds(a, b *version) bool {
	switch t {
	case sameVersion:
		return compareVersions(a, b) == 0
	case otherVersion:
		return compareVersions(a, b) != 0
	case olderVersion:
		return compareVersions(a, b) < 0
	case upToVersion:
		return compareVersions(a, b) <= 0
	case newerVersion:
		return compareVersions(a, b) > 0
	case sinceVersion:
		return compareVersions(a, b) >= 0
	case sameMajor:
		return a.major == b.major
	}
	return a.major == b.major && a.minor == b.minor
}

// opSemVer is [VERSION, OPERATOR, VERSION]: null unless both are versions.
func opSemVer(c *compiler, a args, in scope) code {
	if len(a.nodes) != 3 {
		return constantOf(value{})
	}
	c.checkVersions(a)
	left, op, right := c.arg(a, 0, in), c.arg(a, 1, in), c.arg(a, 2, in)
	if !op.constant {
		return semVerDynamic(left.value(), op.value(), right.value())
	}
	test := versionTests[op.val.str]
	if op.val.kind != text || test == 0 {
		return constantOf(value{})
	}
	get := left.value()
	if right.constant {
		to, ok := right.val.version()
		if !ok {
			return constantOf(value{})
		}
		return affixCode(func(e *env) (bool, bool) {
			v, ok := e.version(get(e))
			return ok && test.holds(&v, &to), ok
		})
	}
	other := right.value()
	return affixCode(func(e *env) (bool, bool) { return e.versions(get(e), other(e), test) })
}

func semVerDynamic(left, op, right expr) code {
	return affixCode(func(e *env) (bool, bool) {
		name := op(e)
		test := versionTests[name.str]
		if name.kind != text || test == 0 {
			return false, false
		}
		return e.versions(left(e), right(e), test)
	})
}

func (e *env) versions(a, b value, test versionTest) (bool, bool) {
	x, ok := e.version(a)
	if !ok {
		return false, false
	}
	y, ok := e.version(b)
	return ok && test.holds(&x, &y), ok
}

// version reads a value as a version; numbers are printed first.
func (e *env) version(v value) (version, bool) {
	switch v.kind {
	case text:
		e.look(v.str)
		return parseVersion(v.str)
	case number:
		start := len(e.bytes)
		e.bytes = appendNumber(e.bytes, v.num)
		return parseVersion(e.scratchText(start).str)
	}
	return version{}, false
}

// version reads a constant, whose text must outlive the evaluation.
func (v value) version() (version, bool) {
	return (&env{steps: maxSteps}).version(v)
}

// checkVersions refuses constants that never compare.
func (c *compiler) checkVersions(a args) {
	for _, i := range []int{0, 2} {
		if n := &a.nodes[i]; !n.dynamic {
			if _, ok := c.literal(n).version(); !ok {
				c.faultArg(a, i, "this is not a semantic version")
			}
		}
	}
	op := &a.nodes[1]
	if !op.dynamic && (op.kind != stringNode || versionTests[op.str] == 0) {
		c.faultArg(a, 1, "sem_ver compares by one of = != < <= > >= ^ ~")
	}
}

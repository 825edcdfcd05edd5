package bundler

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"github.com/sealstone/sealstone/internal/canon"
)

// A scalar is what a plain YAML scalar means, or the rule that it breaks.
type scalar struct {
	kind  kind
	truth bool
	num   float64
	loose bool
	rule  *Rule
	word  bool // a word that is a boolean in YAML 1.1: yes, on, n
}

func (s scalar) why(v string) string {
	switch s.rule {
	case ruleEmpty:
		if v == "" {
			return "the value is empty"
		}
		return fmt.Sprintf("%s is null to some parsers", quote(v))
	case ruleBool:
		return fmt.Sprintf("%s is a boolean to some parsers and a string to others", quote(v))
	case ruleDate:
		return fmt.Sprintf("%s looks like a date or time", quote(v))
	case ruleNumberRange:
		return "the number can't be kept exactly"
	case ruleMergeKey:
		return "<< merges another object into this one"
	}
	return fmt.Sprintf("%s would not print back as written", quote(v))
}

var (
	integer  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	decimal  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)\.[0-9]+$`)
	dateLike = regexp.MustCompile(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?$`)
	// What some YAML parser reads as a number, beyond the two forms above:
	// signs, bases, leading zeros, underscores, exponents, bare dots, base 60.
	numberLike = regexp.MustCompile(`^[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-9_]+|0[bB][01_]+|[0-9][0-9_]*` +
		`|[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+` +
		`|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$`)
	endless = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// resolveScalar is YAML 1.2's core schema cut down to what every parser reads
// alike: null true false, integers and plain decimals; other text is a string
// unless some parser would make something else of it.
func resolveScalar(v string, use usage) scalar {
	switch v {
	case "null":
		return scalar{kind: kindNull}
	case "true", "false":
		return scalar{kind: kindBool, truth: v == "true"}
	case "", "~", "Null", "NULL":
		return scalar{kind: kindNull, rule: ruleEmpty}
	case "True", "TRUE", "False", "FALSE":
		return scalar{kind: kindString, rule: ruleBool}
	case "<<":
		return scalar{kind: kindString, rule: ruleMergeKey}
	case "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF":
		return wordScalar(use)
	}
	if c := v[0]; c != '-' && c != '+' && c != '.' && c != '=' && (c < '0' || c > '9') {
		return scalar{kind: kindString}
	}
	return numberScalar(v)
}

func wordScalar(use usage) scalar {
	s := scalar{kind: kindString, word: true}
	if use == forConfig {
		s.rule = ruleBool
	}
	return s
}

func numberScalar(v string) scalar {
	switch {
	case v == "-0":
		return scalar{kind: kindNumber, rule: ruleNumber}
	case integer.MatchString(v), decimal.MatchString(v):
		return plainNumber(v)
	case endless.MatchString(v):
		return scalar{kind: kindNumber, rule: ruleNumberRange}
	case dateLike.MatchString(v):
		return scalar{kind: kindString, rule: ruleDate}
	case numberLike.MatchString(v), v == "=":
		return scalar{kind: kindString, rule: ruleNumber}
	}
	return scalar{kind: kindString}
}

func plainNumber(v string) scalar {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.Abs(f) > canon.MaxInteger {
		return scalar{kind: kindNumber, rule: ruleNumberRange}
	}
	back, err := canon.Encode(f)
	return scalar{kind: kindNumber, num: f, loose: err != nil || string(back) != v}
}

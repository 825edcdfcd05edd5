// Package canon reads and writes RFC 8785 (JCS) JSON: one spelling for each
// value, so that equal content has equal bytes and a verifier can refuse every
// other spelling.
//
// Numbers are IEEE 754 doubles within ±(2^53-1), however they are spelled;
// larger ones are refused rather than rounded, because a rounded value would be
// signed as if it were meant.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxInteger is the largest whole number that every JSON reader holds exactly.
const MaxInteger = 1<<53 - 1

// ErrNotCanonical is returned for valid JSON that isn't spelled as JCS.
var ErrNotCanonical = errors.New("not canonical JSON (RFC 8785)")

// Append writes v to dst. v is built of nil, bool, string, float64, int, int64,
// uint64, json.Number, []any, []string and map[string]any; anything else is an
// error, as are NaN, infinities, integers out of range and invalid UTF-8.
func Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return appendString(dst, v)
	case []any:
		return appendArray(dst, v)
	case []string:
		return appendArray(dst, v)
	case map[string]any:
		return appendObject(dst, v)
	default:
		return appendNumber(dst, v)
	}
}

// Encode is Append to a new buffer.
func Encode(v any) ([]byte, error) { return Append(nil, v) }

// Marshal writes a Go value by its json tags, as JCS.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return Respell(make([]byte, 0, buf.Len()), bytes.TrimSuffix(buf.Bytes(), []byte("\n")), MaxDepth)
}

// Unmarshal reads JCS bytes into a Go value whose json tags are a closed
// schema: bytes that Marshal would not print back exactly are refused. That
// covers unknown members, other spellings, wrong case, nulls and defaults that
// ought to be absent, in one rule.
func Unmarshal(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return errors.Join(Check(b), err)
	}
	again, err := Marshal(into)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) { // what Marshal prints is JCS, so equal bytes are all there is to ask
		if err := Check(b); err != nil {
			return err
		}
		return fmt.Errorf("%w: members that the format does not have, or empty ones it leaves out", ErrNotCanonical)
	}
	return nil
}

// Check returns nil when b is exactly what Encode prints for its value.
func Check(b []byte) error {
	again, err := Respell(make([]byte, 0, len(b)), b, MaxDepth)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return ErrNotCanonical
	}
	return nil
}

func appendNumber(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case float64:
		return appendFloat(dst, v)
	case int:
		return appendFloat(dst, float64(v))
	case int64:
		return appendFloat(dst, float64(v))
	case uint64:
		return appendFloat(dst, float64(v))
	case json.Number:
		f, err := parseNumber(string(v))
		if err != nil {
			return nil, err
		}
		return appendFloat(dst, f)
	}
	return nil, fmt.Errorf("canonical JSON: can't encode a %T", v)
}

// appendFloat follows ECMAScript's Number::toString, which JCS prescribes.
func appendFloat(dst []byte, f float64) ([]byte, error) {
	if !(math.Abs(f) <= MaxInteger) { // also NaN; every number beyond is an integer
		return nil, fmt.Errorf("canonical JSON: number %v is beyond ±(2^53-1)", f)
	}
	if f == 0 {
		return append(dst, '0'), nil // also for -0
	}
	abs := math.Abs(f)
	if abs >= 1e-6 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64), nil
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); n-start >= 4 && dst[n-4] == 'e' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is e-9
		dst = dst[:n-1]
	}
	return dst, nil
}

func appendArray[T any](dst []byte, list []T) ([]byte, error) {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = Append(dst, any(v)); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, m map[string]any) ([]byte, error) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareUTF16)
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendString(dst, k); err != nil {
			return nil, err
		}
		dst = append(dst, ':')
		if dst, err = Append(dst, m[k]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// compareUTF16 orders as RFC 8785 section 3.2.3 asks: by UTF-16 code units,
// which differs from bytes only where a surrogate pair meets U+E000..U+FFFF.
func compareUTF16(a, b string) int {
	for i := 0; i < len(a) && i < len(b); {
		ra, na := utf8.DecodeRuneInString(a[i:])
		rb, _ := utf8.DecodeRuneInString(b[i:])
		if ra != rb {
			return int(leadUnit(ra, rb)) - int(leadUnit(rb, ra))
		}
		i += na
	}
	return len(a) - len(b)
}

// leadUnit is the first UTF-16 unit in which r differs from other.
func leadUnit(r, other rune) rune {
	h, l := utf16.EncodeRune(r)
	if h == utf8.RuneError {
		return r
	}
	if oh, _ := utf16.EncodeRune(other); oh == h {
		return l
	}
	return h
}

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("canonical JSON: a string is not valid UTF-8")
	}
	return appendText(dst, s), nil
}

// appendText writes what is known to be valid UTF-8.
func appendText[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(append(dst, s[start:i]...), '\\')
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, c)
		case '\b':
			dst = append(dst, 'b')
		case '\t':
			dst = append(dst, 't')
		case '\n':
			dst = append(dst, 'n')
		case '\f':
			dst = append(dst, 'f')
		case '\r':
			dst = append(dst, 'r')
		default:
			dst = append(dst, 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

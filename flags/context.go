package flags

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// Context holds the attributes of one evaluation by name, with the subject of
// the evaluation under "targetingKey": OpenFeature's FlattenedContext. It is
// only read. Go's own types are taken as encoding/json would write them.
type Context = map[string]any

// fromAny takes a context value as it is; only types beyond the usual ones cost
// a conversion, and only when a rule reads them.
func fromAny(in any) value {
	switch x := in.(type) {
	case nil:
		return value{}
	case string:
		return ofText(x)
	case bool:
		return ofBool(x)
	case float64:
		return ofNum(x)
	case int:
		return ofNum(float64(x))
	case int64:
		return ofNum(float64(x))
	case []any, []string:
		return value{kind: array, ref: in} // x would be boxed anew
	case map[string]any, map[string]string:
		return value{kind: object, ref: in}
	}
	return fromRare(in)
}

func fromRare(x any) value {
	switch x := x.(type) {
	case int32:
		return ofNum(float64(x))
	case float32:
		return ofNum(float64(x))
	case json.Number:
		f, ok := parseDecimal(string(x))
		if !ok || x == "" {
			return value{}
		}
		return ofNum(f)
	case time.Time:
		return ofText(x.Format(time.RFC3339Nano))
	case json.Marshaler, encoding.TextMarshaler:
		return fromJSON(x)
	}
	return fromReflect(reflect.ValueOf(x))
}

func fromReflect(r reflect.Value) value {
	switch r.Kind() {
	case reflect.Bool:
		return ofBool(r.Bool())
	case reflect.String:
		return ofText(r.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return ofNum(float64(r.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return ofNum(float64(r.Uint()))
	case reflect.Float32, reflect.Float64:
		return ofNum(r.Float())
	case reflect.Pointer:
		if r.IsNil() {
			return value{}
		}
		if e := r.Elem(); e.Kind() != reflect.Pointer { // pointers may go round
			return fromAny(e.Interface())
		}
	}
	return fromJSON(r.Interface())
}

// fromJSON is the last resort: structs, typed maps and slices go through their
// JSON form. What has none (a channel, a cycle) is null.
func fromJSON(x any) value {
	b, err := json.Marshal(x)
	if err != nil {
		return value{}
	}
	var plain any
	if json.Unmarshal(b, &plain) != nil {
		return value{}
	}
	return fromAny(plain)
}

// member looks one name up in an object or an array.
func (v value) member(name string) value {
	switch o := v.ref.(type) {
	case map[string]any:
		return fromAny(o[name])
	case map[string]string:
		if s, ok := o[name]; ok {
			return ofText(s)
		}
		return value{}
	}
	if v.kind != array {
		return value{}
	}
	if i, ok := arrayIndex(name); ok && i < v.len() {
		return v.at(i)
	}
	return value{}
}

// arrayIndex reads a plain index; "length" and "-1" are none.
func arrayIndex(name string) (int, bool) {
	if name == "" || len(name) > 9 || digitsOf(name) != len(name) || name[0] == '0' && name != "0" {
		return 0, false
	}
	i := 0
	for _, c := range []byte(name) {
		i = i*10 + int(c-'0')
	}
	return i, true
}

// follow walks a dotted path below v; the empty path is v itself.
func (v value) follow(path string) value {
	for path != "" && v.kind != null {
		name, rest, more := strings.Cut(path, ".")
		v = v.member(name)
		if path = rest; more && rest == "" {
			return v.member("")
		}
	}
	return v
}

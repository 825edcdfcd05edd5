package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The flags: 1,000 booleans, of which every engine holds all. A tenth has ten
// rules, three tenths have one, the others none. The rows of single flags ask
// for one of each.
const (
	numFlags  = 1000
	keyOne    = "flag-0000"
	keyTen    = "flag-0003"
	keyStatic = "flag-0004"
)

// A shape is what a flag is made of.
type shape int

const (
	static  shape = iota
	oneRule       // the email ends with emailSuffix
	tenRules
)

func shapeOf(i int) shape {
	switch i % 10 {
	case 0, 1, 2:
		return oneRule
	case 3:
		return tenRules
	}
	return static
}

func keyOf(i int) string { return fmt.Sprintf("flag-%04d", i) }

func allKeys() []string {
	keys := make([]string, numFlags)
	for i := range keys {
		keys[i] = keyOf(i)
	}
	return keys
}

const emailSuffix = "@example.com"

// A rule of the ten: the country is in the list, the version is at least that,
// and the half of the users that the split picks.
type rule struct {
	seed      string
	countries []string
	least     string
}

// theTen: for somebody in PT with version 2.11.3 five rules fail on the country,
// four on the version, and the tenth matches.
func theTen() []rule {
	north, south := strings.Fields("DE FR IT ES NL BE AT CH DK SE"), strings.Fields("PT PL CZ SK HU RO BG GR FI NO")
	rules := make([]rule, 10)
	for i := range rules {
		rules[i] = rule{"rule-" + strconv.Itoa(i), north, "2.0.0"}
		if i >= 5 {
			rules[i].countries, rules[i].least = south, "3."+strconv.Itoa(i)+".0"
		}
	}
	rules[9].least = "2.4.0"
	return rules
}

// user is who asks: nine attributes, the key among them.
func user(n int) map[string]any {
	return map[string]any{
		"targetingKey": fmt.Sprintf("user-%d", n), "email": "ada" + emailSuffix, "country": "PT", "version": "2.11.3",
		"plan": "pro", "age": 37.0, "beta": true, "device": "mobile", "locale": "pt-PT",
	}
}

// stranger is somebody for whom no rule holds.
func stranger(n int) map[string]any {
	u := user(n)
	u["email"], u["country"] = "ada@example.org", "JP"
	return u
}

// document is the flags in flagd's format, which flagd, the bare JsonLogic
// library and we read.
func document() []byte {
	flags := map[string]any{}
	for i := range numFlags {
		f := map[string]any{"state": "ENABLED", "variants": map[string]any{"on": true, "off": false}, "defaultVariant": "off"}
		if t := targeting(shapeOf(i)); t != nil {
			f["targeting"] = t
		}
		flags[keyOf(i)] = f
	}
	b, err := json.Marshal(map[string]any{"flags": flags})
	if err != nil {
		panic(err) // strings, booleans and numbers only
	}
	return b
}

func targeting(s shape) any {
	switch s {
	case oneRule:
		return op("if", op("ends_with", op("var", "email"), emailSuffix), "on", "off")
	case tenRules:
		var arms []any
		for _, r := range theTen() {
			seed := op("cat", r.seed, op("var", "targetingKey"))
			arms = append(arms,
				op("and", op("in", op("var", "country"), r.countries), op("sem_ver", op("var", "version"), ">=", r.least)),
				op("fractional", seed, []any{"on", 50}, []any{"off", 50}))
		}
		return op("if", append(arms, "off")...)
	}
	return nil
}

func op(name string, operands ...any) map[string]any {
	if len(operands) == 1 {
		return map[string]any{name: operands[0]}
	}
	return map[string]any{name: operands}
}

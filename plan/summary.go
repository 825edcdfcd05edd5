package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// finish puts what a reviewer needs first and says it in one line.
func (m *maker) finish() *Plan {
	p := m.out
	slices.SortStableFunc(p.Items, func(a, b Placed) int { return min(1, len(b.Live)) - min(1, len(a.Live)) })
	p.Verdict, p.Summary = p.verdict()
	return p
}

func (p *Plan) verdict() (Verdict, string) {
	errors := counted(len(p.Errors), "error")
	v, text := p.effect()
	switch {
	case p.Whole:
		return Refused, "nothing of it goes live: " + errors + ", everything stays as it is"
	case len(p.Refused) > 0:
		return Refused, list(p.Refused) + " would not go live: " + errors + ", the last good set stays" + p.beside(v) + p.who("; ")
	case v == Nothing && len(p.Access) > 0:
		v, text = Changes, p.who("")
	case v == Waits && len(p.Access) > 0:
		v, text = Changes, text+p.who("; ")
	default:
		text += p.who("; ")
	}
	if len(p.Errors) > 0 {
		text += "; " + errors + " that the server passes over"
	}
	return v, text
}

// who names everybody and the operators whose rights change, those who gain some
// first, and counts clients, whose names are free text; without any it names the
// files.
func (p *Plan) who(glue string) string {
	var gain, lose, files []string
	clients := 0
	for _, i := range p.Access {
		switch {
		case i.Kind == KindFile && slices.ContainsFunc(i.Edits, func(e Edit) bool { return e.Key == everybody }):
			gain = slices.Insert(gain, 0, everybody)
		case i.Kind == KindFile:
			files = append(files, i.Name)
		case i.Kind == KindClient:
			clients++
		case slices.ContainsFunc(i.Edits, func(e Edit) bool { return e.New != "" }):
			gain = append(gain, "operator "+i.Name)
		default:
			lose = append(lose, "operator "+i.Name)
		}
	}
	who := append(gain, lose...)
	if clients > 0 {
		who = append(who, counted(clients, "client"))
	}
	if len(who) == 0 {
		who = files
	}
	if len(who) == 0 {
		return ""
	}
	return glue + "who may do what changes: " + list(who)
}

// beside says what happens to others while services are refused.
func (p *Plan) beside(v Verdict) string {
	if v != Changes && v != Destructive {
		return ""
	}
	n := len(p.in(SetNew, SetChanges, SetUnknown, SetMoves))
	text := "; " + "goes live of others: " + counted(n, "set")
	if gone := len(p.in(SetWithdrawn)); gone > 0 {
		text += ", " + fmt.Sprint(gone) + " withdrawn"
	}
	return text
}

// effect is what comes of the services that are taken.
func (p *Plan) effect() (Verdict, string) {
	live, moves, waits := p.in(SetNew, SetChanges, SetUnknown, SetWithdrawn), p.in(SetMoves), p.in(SetWaits)
	later := ""
	if len(waits) > 0 {
		later = "; waits for promotion: " + sets(waits)
	}
	var gone []string
	for _, s := range p.Sets {
		if s.Destructive {
			gone = append(gone, s.target())
		}
	}
	switch {
	case len(gone) > 0:
		return Destructive, "withdraws " + list(gone) + ", and nothing takes its place"
	case len(live) > 0 && len(p.Items) == 0 && len(live) == len(p.in(SetChanges)):
		return Changes, "goes live: " + sets(live) + ", with no value that differs: only the sets do, by the scopes and modes that they list" + later
	case len(live) > 0:
		return Changes, "goes live: " + sets(append(live, moves...)) + later
	case len(moves) > 0:
		return Changes, "the same content, under another release or a pin: " + sets(moves) + later
	case len(waits) > 0:
		return Waits, "nothing goes live" + later
	}
	return Nothing, "nothing that is served changes"
}

// in lists the targets of sets in some states.
func (p *Plan) in(states ...State) []string {
	var out []string
	for _, s := range p.Sets {
		if slices.Contains(states, s.State) {
			out = append(out, s.target())
		}
	}
	return out
}

func (s *Set) target() string { return api.Target{Service: s.Service, Scope: s.Scope}.String() }

// sets names targets, or counts them where a line of two such lists would not
// fit Width.
func sets(targets []string) string {
	if all := strings.Join(targets, ", "); len(all) <= 28 {
		return all
	}
	services := map[string]bool{}
	for _, t := range targets {
		service, _, _ := strings.Cut(t, "@")
		services[service] = true
	}
	return counted(len(targets), "set") + " of " + counted(len(services), "service")
}

// list names the first few.
func list(names []string) string { return firstOf(names, 2) }

func firstOf(names []string, most int) string {
	if len(names) > most+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// counted is "1 error" or "2 errors".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// placesText names places as people do: a scope once, and modes only where not
// all of them are meant.
func (p *Plan) placesText(places []Place) string {
	var services []string
	by := map[string][]Place{}
	for _, at := range places {
		if by[at.Service] == nil {
			services = append(services, at.Service)
		}
		by[at.Service] = append(by[at.Service], at)
	}
	var parts []string
	for i, name := range services {
		if i == 6 {
			parts = append(parts, fmt.Sprintf("%d more services", len(services)-i))
			break
		}
		parts = append(parts, name+" "+scopesText(by[name], p.modesOf(name)))
	}
	return strings.Join(parts, "; ")
}

// scopesText lists scopes, those with the same modes together.
func scopesText(places []Place, all int) string {
	modes := map[api.Scope][]string{}
	var scopes []api.Scope
	for _, at := range places {
		if modes[at.Scope] == nil {
			scopes = append(scopes, at.Scope)
		}
		modes[at.Scope] = append(modes[at.Scope], string(at.Mode))
	}
	var order []string
	grouped := map[string][]string{}
	for _, s := range scopes {
		key := " in mode " + strings.Join(modes[s], ", ")
		if len(modes[s]) == all {
			key = ""
		}
		if grouped[key] == nil {
			order = append(order, key)
		}
		grouped[key] = append(grouped[key], string(s))
	}
	for i, key := range order {
		order[i] = firstOf(grouped[key], 4) + key
	}
	return strings.Join(order, ", ")
}

// modesOf counts the modes of a service, normal among them, that the plan is
// about.
func (p *Plan) modesOf(service string) int {
	n := 1
	for _, m := range p.Modes {
		if m.Service == service && m.State != "removed" && m.State != "added" {
			n++
		}
	}
	return n
}

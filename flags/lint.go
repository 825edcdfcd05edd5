package flags

// A Warning is a construct that evaluates here but not the same everywhere.
type Warning struct {
	Path string // JSON pointer into the document
	Rule string // short, stable name of the kind of construct
	Msg  string // who does what
}

// Lint reports constructs on which public implementations of flagd's semantics
// differ. A document that does not parse has no warnings: Compile reports that.
func Lint(doc []byte) []Warning {
	return nil
}

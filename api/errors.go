package api

import (
	"errors"
	"net/http"
	"strings"
)

// Code is one row of the error table: what went wrong, in a word that programs
// branch on. It is the last part of an RFC 9457 problem type.
type Code string

// The error table. Each code has one status, in statusOf.
const (
	CodeInvalid       Code = "invalid-request"
	CodeUnauthorized  Code = "unauthorized"
	CodeForbidden     Code = "forbidden"
	CodeNotFound      Code = "not-found"
	CodeNotActivated  Code = "not-activated"
	CodeConflict      Code = "conflict"
	CodeGone          Code = "gone"
	CodeTooLarge      Code = "too-large"
	CodeTooMany       Code = "too-many-requests"
	CodeUnsupported   Code = "unsupported-media-type"
	CodeMethod        Code = "method-not-allowed"
	CodeUnprocessable Code = "refused"
	CodeClockSkew     Code = "clock-skew"
	CodeReadOnly      Code = "ledger-read-only"
	CodeStorage       Code = "insufficient-storage"
	CodeUnavailable   Code = "unavailable"
	CodeInternal      Code = "internal"
	CodeDamaged       Code = "damaged"
)

var statusOf = map[Code]int{
	CodeInvalid: http.StatusBadRequest, CodeUnauthorized: http.StatusUnauthorized, CodeForbidden: http.StatusForbidden,
	CodeNotFound: http.StatusNotFound, CodeNotActivated: http.StatusNotFound, CodeConflict: http.StatusConflict,
	CodeGone: http.StatusGone, CodeTooLarge: http.StatusRequestEntityTooLarge, CodeTooMany: http.StatusTooManyRequests,
	CodeUnsupported: http.StatusUnsupportedMediaType, CodeMethod: http.StatusMethodNotAllowed,
	CodeUnprocessable: http.StatusUnprocessableEntity, CodeClockSkew: http.StatusUnprocessableEntity,
	CodeReadOnly: http.StatusInsufficientStorage, CodeStorage: http.StatusInsufficientStorage,
	CodeUnavailable: http.StatusServiceUnavailable, CodeInternal: http.StatusInternalServerError, CodeDamaged: http.StatusInternalServerError,
}

// Status is the HTTP status of a code; an unknown code is an internal error.
func (c Code) Status() int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Error is an error with a row in the table. Detail says what and where, Hint
// what to do next; both reach the client, so neither holds secrets.
type Error struct {
	Code   Code
	Detail string
	Hint   string
	Err    error // cause, for errors.Is; never sent
}

func (e *Error) Error() string {
	s := e.Detail
	if s == "" && e.Err != nil {
		s = e.Err.Error()
	}
	if s == "" {
		s = string(e.Code)
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is(err, &Error{Code: CodeConflict}) ask for a row.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Detail == "" && t.Err == nil
}

// CodeOf returns the row of err, CodeInternal when it has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

const problemType = "urn:sealstone:error:"

// Problem is an error on the wire, RFC 9457, application/problem+json.
type Problem struct {
	Type   string `json:"type"` // "urn:sealstone:error:<code>"
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// ProblemOf maps an error to its answer. An error without a row says "internal
// error" and nothing else: its text may hold what a client must not see.
func ProblemOf(err error) Problem {
	code := CodeOf(err)
	p := Problem{Type: problemType + string(code), Title: http.StatusText(code.Status()), Status: code.Status()}
	if e, ok := errors.AsType[*Error](err); ok {
		p.Detail, p.Hint = e.Detail, e.Hint
		if p.Detail == "" && e.Err != nil && code != CodeInternal {
			p.Detail = e.Err.Error()
		}
	} else {
		p.Detail = "internal error; the server's log has the cause"
	}
	return p
}

// Error maps an answer back to the error it came from.
func (p Problem) Error() *Error {
	code, ours := strings.CutPrefix(p.Type, problemType)
	if !ours || code == "" {
		code = string(CodeInternal)
	}
	return &Error{Code: Code(code), Detail: p.Detail, Hint: p.Hint}
}

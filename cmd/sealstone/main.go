// Command sealstone turns a Git repository of configuration and feature flags
// into signed, content-addressed bundles, serves them by scope, and keeps
// tamper-evident evidence of every change.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes, as documented for scripts.
const (
	exitOK          = 0
	exitError       = 1
	exitFinding     = 2
	exitProof       = 3
	exitAuth        = 4
	exitInterrupted = 130
)

// exitCode carries a code past cobra; its message, if any, was printed.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// run is the whole program with its surroundings as values, so that tests call
// it in-process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	stderr = clean(stderr)
	out := &sink{Writer: stdout}
	code := runCommand(ctx, args, stdin, out, stderr)
	if out.err != nil && (code == exitOK || code == exitFinding) {
		printError(stderr, fmt.Errorf("the answer could not be written: %w", out.err))
		return exitError
	}
	return code
}

func runCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(&app{in: stdin, out: stdout, err: stderr})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	began := false
	watchStart(root, &began)
	cmd, err := root.ExecuteContextC(ctx)
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	printError(stderr, err)
	if !began && cmd != root && cmd.Runnable() {
		fmt.Fprintf(stderr, "  next: sealstone %s\n", strings.TrimPrefix(cmd.UseLine(), "sealstone "))
	}
	return codeOf(err)
}

// watchStart notes when a command's own code begins: an error before that is
// about how it was called.
func watchStart(cmd *cobra.Command, began *bool) {
	for _, c := range cmd.Commands() {
		watchStart(c, began)
		if run := c.RunE; run != nil {
			c.RunE = func(c *cobra.Command, args []string) error { *began = true; return run(c, args) }
		}
	}
}

// printError says what went wrong and, where one is known, what to do next.
func printError(w io.Writer, err error) {
	if list := joined(err); list != nil {
		for _, e := range list {
			printError(w, e)
		}
		return
	}
	text, hint := err.Error(), ""
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		text, hint = strings.TrimSuffix(text, " ("+e.Hint+")"), e.Hint
	}
	fmt.Fprintln(w, "sealstone: "+text)
	if hint != "" {
		fmt.Fprintln(w, "  next: "+hint)
	}
}

// joined takes errors.Join's list apart; other errors with several causes have
// a text of their own.
func joined(err error) []error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var lines []string
	for _, e := range list.Unwrap() {
		lines = append(lines, e.Error())
	}
	if strings.Join(lines, "\n") != err.Error() {
		return nil
	}
	return list.Unwrap()
}

// codeOf maps errors to exit codes.
func codeOf(err error) int {
	_, refused := errors.AsType[*ledger.CheckError](err)
	_, diverged := errors.AsType[*mirror.Divergence](err)
	switch code := api.CodeOf(err); {
	case refused, diverged, errors.Is(err, mirror.ErrDamaged), errors.Is(err, ledger.ErrCheckpoint), errors.Is(err, ledger.ErrSignature) && code == api.CodeInternal, errors.Is(err, ledger.ErrTrust), errors.Is(err, errProof), errors.Is(err, store.ErrNoCopy), kv.Damaged(err), code == api.CodeDamaged:
		return exitProof
	case code == api.CodeUnauthorized, code == api.CodeForbidden:
		return exitAuth
	}
	return exitError
}

// errProof marks findings of verification.
var errProof = errors.New("verification failed")

// app is what every command shares: streams and the common options.
type app struct {
	in       io.Reader
	out, err io.Writer

	output    string
	context   string
	server    string
	key       string
	tokenFile string
	trust     string
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "sealstone",
		Short: "Prove what is live, where, since when, by whose change",
		Long: "Sealstone turns a Git repository of configuration and feature flags into signed,\n" +
			"content-addressed bundles, serves them by scope, and keeps tamper-evident\n" +
			"evidence of every change.\n\nStart with: sealstone demo",
		Version:      version(),
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.applyContext(c.Flags().Changed) }
	f := root.PersistentFlags()
	f.StringVar(&a.context, "context", os.Getenv("SEALSTONE_CONTEXT"), "named context to take --server, --key, --token-file and --trust from [$SEALSTONE_CONTEXT]")
	f.StringVarP(&a.output, "output", "o", "table", "output format: table, json, yaml or jsonl; plan has text and markdown too, history has csv")
	f.StringVar(&a.server, "server", os.Getenv("SEALSTONE_SERVER"), "server URL [$SEALSTONE_SERVER]")
	f.StringVar(&a.key, "key", os.Getenv("SEALSTONE_KEY"), "Ed25519 SSH key: a private key file, or a .pub file whose key is in ssh-agent [$SEALSTONE_KEY]")
	f.StringVar(&a.tokenFile, "token-file", os.Getenv("SEALSTONE_TOKEN_FILE"), "file with the read token [$SEALSTONE_TOKEN_FILE]")
	f.StringVar(&a.trust, "trust", os.Getenv("SEALSTONE_TRUST"), "trust file to verify with [$SEALSTONE_TRUST]")
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, add := range g.commands {
			c := add(a)
			c.GroupID, c.Example = g.title, helpExamples[c.Name()]
			root.AddCommand(c)
		}
	}
	return root
}

// groups are the commands by what they are for.
var groups = []struct {
	title    string
	commands []func(*app) *cobra.Command
}{
	{"Ask", []func(*app) *cobra.Command{newLive, newHistory, newDiff, newChanges, newEval, newVerify}},
	{"Change", []func(*app) *cobra.Command{newCheck, newPlan, newPromote, newBuild, newSafeMode}},
	{"Operate", []func(*app) *cobra.Command{newStatus, newDoctor, newServe, newMirror, newSource}},
	{"Set up", []func(*app) *cobra.Command{newDemo, newInit, newLedger, newOperators, newTrust, newToken, newContext, newVersion}},
}

// helpExamples are shown in the help of the commands that people meet first.
var helpExamples = map[string]string{
	"live":    "  sealstone live checkout\n  sealstone live checkout --at 2026-11-20T10:03:00Z",
	"history": "  sealstone history checkout@prod/eu-west-1 --from 2026-11-20",
	"diff":    "  sealstone diff checkout@prod checkout@staging\n  sealstone diff checkout@prod~2026-11-20T10:03Z checkout@prod",
	"changes": "  sealstone changes --service checkout --from 2026-11-20\n  sealstone changes --kind safe-mode.entered,safe-mode.exited",
	"eval":    "  sealstone eval express-checkout --target checkout@prod --context '{\"country\":\"DE\"}' --explain",
	"verify":  "  sealstone verify --server https://config.example.com --trust trust.json\n  sealstone verify proof.json --trust trust.json",
	"check":   "  sealstone check .",
	"plan":    "  sealstone plan --base main --head HEAD",
	"promote": "  sealstone promote checkout --to prod --from staging",
	"serve":   "  sealstone serve --repo https://git.example.com/config --data /var/lib/sealstone",
}

// faultsError prints a repository's faults one a line and ends with exit 1.
func (a *app) faultsError(faults bundler.Faults) error {
	for _, f := range faults {
		fmt.Fprintln(a.err, f.String())
	}
	return exitCode(exitError)
}

// readFile reads a file, or standard input for "-".
func (a *app) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(path)
}

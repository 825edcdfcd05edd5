// Command bench measures the flag evaluator against others on the same flags and
// users in one run, and writes docs/benchmarks.md.
//
//	go run . -o ../docs/benchmarks.md
//
// Absolute times are those of the machine it runs on; compare ratios. Before
// anything is measured all engines are checked to give the same answers.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/bench/page"
	"github.com/sealstone/sealstone/sdk"
)

func main() {
	out := flag.String("o", "", "page whose generated part is written; empty prints it")
	m := meter{}
	flag.DurationVar(&m.run, "run", 8*time.Millisecond, "length of one run")
	flag.IntVar(&m.rounds, "rounds", 25, "runs of each engine in each row; the fastest counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, m, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, m meter, out string) error {
	l, err := assemble()
	if err != nil {
		return err
	}
	defer l.close()
	if err := agree(l.engines); err != nil {
		return err
	}
	for _, e := range l.openFeature {
		if e.name != ofOurs && e.name != ofHand {
			continue // it evaluates nothing
		}
		if err := agreeThroughSDK(l.engines[0], e); err != nil {
			return err
		}
	}
	rows, err := l.rows()
	if err != nil {
		return err
	}
	r := report{machine: page.This("../flags", "../sdk", "."), meter: m, lineup: l}
	for i := range rows {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintln(os.Stderr, "measuring:", rows[i].title)
		rows[i].results = m.measure(rows[i].subjects)
	}
	r.rows = rows
	return marks.Write(out, r.markdown())
}

// A lineup is everything that is measured.
type lineup struct {
	doc         []byte
	engines     []engine // the first is what ratios are to, the last the limit
	openFeature []engine // ours and the limit
	closers     []func()
}

func assemble() (l *lineup, err error) {
	l = &lineup{doc: document()}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, func() { _ = os.RemoveAll(dir) })
	client, err := openClient(dir, l.doc)
	if err != nil {
		return nil, err
	}
	l.closers = append(l.closers, client.Close)
	if err := l.addPeers(client); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, openfeature.Shutdown)
	l.openFeature, err = throughOpenFeature(client)
	return l, err
}

func (l *lineup) addPeers(client *sdk.Client) error {
	ld, stop, err := launchDarkly()
	if err != nil {
		return err
	}
	l.closers = append(l.closers, stop)
	gb, err := growthBook()
	if err != nil {
		return err
	}
	fd, err := flagd(l.doc)
	if err != nil {
		return err
	}
	bare, err := bareJSONLogic(l.doc)
	if err != nil {
		return err
	}
	l.engines = append(sealstone(client), ld...)
	l.engines = append(l.engines, gb, bare, fd, handWritten())
	return nil
}

func (l *lineup) close() {
	for i := len(l.closers) - 1; i >= 0; i-- {
		l.closers[i]()
	}
}

package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealstone/sealstone/bundler"
)

// When work counts as long, and how often it then says how far it is: on a
// terminal by one line that changes, elsewhere by a line each time.
const (
	liveAfter, liveEvery   = 300 * time.Millisecond, 200 * time.Millisecond
	plainAfter, plainEvery = 2 * time.Second, 10 * time.Second
)

// progress says on standard error how far long work is until stop is called,
// which may be called again.
// Programs that read JSON get nothing, unless a person watches.
func (a *app) progress(text func(took time.Duration) string) (stop func()) {
	live := terminal(a.err)
	if !live && a.output != "table" {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		report(bare(a.err), live, text, end) // it redraws its line
	}()
	return sync.OnceFunc(func() { close(end); <-ended })
}

func report(w io.Writer, live bool, text func(time.Duration) string, end <-chan struct{}) {
	start := time.Now()
	after, every, format := plainAfter, plainEvery, "%s\n"
	if live {
		after, every, format = liveAfter, liveEvery, "\r%s\x1b[K"
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	shown := false
	for {
		select {
		case <-timer.C:
			fmt.Fprintf(w, format, text(time.Since(start)))
			shown = true
			timer.Reset(every)
		case <-end:
			if live && shown {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		}
	}
}

// building is the progress of a builder.
func (a *app) building(verb string, b *bundler.Builder) (stop func()) {
	return a.progress(func(took time.Duration) string {
		p := b.Progress()
		return fmt.Sprintf("%s: %d of %d services, %d files, %.0f files/s, %s", verb, p.Services, p.Wanted, p.Files, float64(p.Files)/took.Seconds(), took.Round(100*time.Millisecond))
	})
}

// counting is the progress of work that knows how much there is.
func (a *app) counting(verb, what string) (count func(done, total int64), stop func()) {
	var done, total atomic.Int64
	stop = a.progress(func(took time.Duration) string {
		n := done.Load()
		return fmt.Sprintf("%s: %d of %d %s, %.0f/s, %s", verb, n, total.Load(), what, float64(n)/took.Seconds(), took.Round(100*time.Millisecond))
	})
	return func(d, t int64) { done.Store(d); total.Store(t) }, stop
}

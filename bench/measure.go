package main

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A subject is one line of a table: start makes a loop for one more goroutine.
type subject struct {
	name  string
	start func() loop
}

// A result is what a subject's runs came to. Times are per operation over all
// goroutines: with two that never wait for each other, ns2 is half of ns1.
type result struct {
	name          string
	ns1, ns2      float64 // minimum over the runs
	median        float64 // of ns1's runs
	bytes, allocs float64
}

func (r *result) scaling() float64 { return r.ns1 / r.ns2 }

// A meter says how long and how often to run.
type meter struct {
	run    time.Duration // length of one run
	rounds int
}

// measure runs all subjects of a row in turn, round after round, so that a
// machine that slows down slows all of them down. The minimum is what the code
// takes when nothing disturbs it.
func (m meter) measure(subjects []subject) []result {
	out := make([]result, len(subjects))
	sizes := make([]int, len(subjects))
	runs1, runs2 := make([][]float64, len(subjects)), make([][]float64, len(subjects))
	for i, s := range subjects {
		out[i].name = s.name
		l := s.start()
		sizes[i] = m.size(l)
		out[i].bytes, out[i].allocs = allocations(l, sizes[i])
	}
	for range m.rounds {
		for i, s := range subjects {
			runs1[i] = append(runs1[i], timed(s, 1, sizes[i]))
			runs2[i] = append(runs2[i], timed(s, 2, sizes[i]))
		}
	}
	for i := range out {
		out[i].ns1, out[i].ns2 = slices.Min(runs1[i]), slices.Min(runs2[i])
		slices.Sort(runs1[i])
		out[i].median = runs1[i][len(runs1[i])/2]
	}
	return out
}

// size is how many operations take about one run.
func (m meter) size(l loop) int {
	n := 1
	for {
		began := time.Now()
		l(n)
		took := time.Since(began)
		if took >= m.run/2 {
			return max(1, int(float64(n)*float64(m.run)/float64(took)))
		}
		n *= 2
	}
}

// sink keeps what is measured from being optimised away.
var sink atomic.Int64

// timed gives the time of one operation when each of several goroutines does n.
func timed(s subject, goroutines, n int) float64 {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(goroutines)
	for range goroutines {
		done.Go(func() {
			l := s.start()
			sum := l(1)
			ready.Done()
			<-start
			sum += l(n)
			sink.Add(int64(sum))
		})
	}
	ready.Wait()
	runtime.GC()
	began := time.Now()
	close(start)
	done.Wait()
	return float64(time.Since(began)) / float64(n*goroutines)
}

// allocations counts bytes and objects of one operation, the smallest of three
// counts: a background goroutine may allocate meanwhile. They are rounded as
// testing does, to whole ones.
func allocations(l loop, n int) (bytes, allocs float64) {
	n = min(n, 10_000)
	for i := range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l(n)
		runtime.ReadMemStats(&after)
		b, a := float64((after.TotalAlloc-before.TotalAlloc)/uint64(n)), float64((after.Mallocs-before.Mallocs)/uint64(n))
		if i == 0 || a < allocs {
			allocs = a
		}
		if i == 0 || b < bytes {
			bytes = b
		}
	}
	return bytes, allocs
}

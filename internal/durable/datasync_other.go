//go:build !linux

package durable

import "os"

// SyncData makes the bytes of a file durable that was written in place.
func SyncData(f *os.File) error { return f.Sync() }

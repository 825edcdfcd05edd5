// Package durable writes files that are whole after a crash.
//
//	err := durable.WriteFile(path, data, 0o600) // nil: it is there, also after a crash
//
// It is our own because the libraries for it, google/renameio and
// natefinch/atomic, do not sync the directory: after a crash the old file could
// be back though the write was answered for.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Temporary matches the names of what a killed process leaves behind.
const Temporary = ".*.tmp"

// WriteFile replaces a file so that a crash leaves the old or the new one,
// whole, and after it returned nil the new one.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, func(string) error { return nil })
}

// Replace is WriteFile without the last step: a crash soon after it may bring
// back the old file. SyncDir makes up for it, once for many files.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return replace(path, data, mode, func(string) error { return nil })
}

// SyncDir makes renames and new files in a directory durable.
func SyncDir(dir string) error { return SyncFile(dir) }

// SyncFile makes a file durable that others wrote.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func write(path string, data []byte, mode fs.FileMode, before func(step string) error) error {
	err := replace(path, data, mode, before)
	if err == nil {
		err = before("sync the directory")
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	return err
}

// replace asks before each step; tests fail and crash there.
func replace(path string, data []byte, mode fs.FileMode, before func(step string) error) error {
	var f *os.File
	steps := []struct {
		name string
		do   func() error
	}{
		{"create", func() (err error) {
			f, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
			return err
		}},
		{"write", func() error { _, err := f.Write(data); return err }},
		{"set the mode", func() error { return f.Chmod(mode) }},
		{"sync", func() error { return f.Sync() }},
		{"close", func() error { return f.Close() }},
		{"rename", func() error { return os.Rename(f.Name(), path) }},
	}
	for _, s := range steps {
		err := before(s.name)
		if err == nil {
			err = s.do()
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", path, errors.Join(err, discard(f)))
		}
	}
	return nil
}

func discard(f *os.File) error {
	if f == nil {
		return nil
	}
	f.Close() // is closed already when the rename fails
	return os.Remove(f.Name())
}

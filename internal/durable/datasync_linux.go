package durable

import (
	"errors"
	"os"
	"syscall"
)

// SyncData makes the bytes of a file durable that was written in place. Unlike
// fsync it leaves out times, so that the file system need not commit its
// journal, and with it what everybody else wrote.
func SyncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

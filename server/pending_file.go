package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
)

// A pendingFile keeps waiting statements over a restart. It is needed when the
// disk is full, so its room is taken beforehand, and it is written in place: two
// slots take turns, each a line with a number, a length and a checksum, then
// JSON. A crash while one is written leaves the other.
type pendingFile string // path; "" is none

const (
	pendingSlot  = 2 << 20
	pendingTitle = "sealstone pending v1"
)

// take makes the file where there is none.
func (f pendingFile) take() error {
	info, err := os.Stat(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return durable.WriteFile(string(f), make([]byte, 2*pendingSlot), 0o600)
	}
	if err == nil && info.Size() != 2*pendingSlot {
		err = fmt.Errorf("%s has %d bytes, not the %d that it is made with; move it away", string(f), info.Size(), 2*pendingSlot)
	}
	return err
}

// read returns the newest list and its number; 0 for a file that was never
// written.
func (f pendingFile) read() (list []json.RawMessage, number uint64, err error) {
	b, err := os.ReadFile(string(f))
	if err != nil {
		return nil, 0, err
	}
	for ; len(b) >= pendingSlot; b = b[pendingSlot:] {
		if n, body, ok := parseSlot(b[:pendingSlot]); ok && n > number {
			list, number = nil, n
			err = json.Unmarshal(body, &list)
		} else if !ok && number == 0 && b[0] != 0 {
			err = fmt.Errorf("%s: a slot is damaged", string(f))
		}
	}
	return list, number, err
}

func parseSlot(slot []byte) (number uint64, body []byte, ok bool) {
	line, rest, _ := bytes.Cut(slot, []byte("\n"))
	var n int
	var sum api.Digest
	if _, err := fmt.Sscanf(string(line[:min(len(line), 200)]), pendingTitle+" %d %d %s", &number, &n, &sum); err != nil || n < 0 || n > len(rest) {
		return 0, nil, false
	}
	return number, rest[:n], sum == slotSum(number, rest[:n])
}

func slotSum(number uint64, body []byte) api.Digest {
	return api.DigestOf(fmt.Appendf(nil, "%d\n%s", number, body))
}

// write replaces the list; durable when it returns nil. An empty one fills both
// slots to their ends: what is erased from the log must not go on here.
func (f pendingFile) write(list []api.Submission) error {
	if f == "" {
		return errors.New("there is no file to keep pending statements in")
	}
	if err := f.take(); err != nil {
		return err
	}
	_, number, _ := f.read() // where both slots are damaged, a start said so
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	slot := append(fmt.Appendf(nil, "%s %d %d %s\n", pendingTitle, number+1, len(body), slotSum(number+1, body)), body...)
	if len(slot) > pendingSlot {
		return fmt.Errorf("%d pending statements need %d bytes, %s has room for %d", len(list), len(slot), string(f), pendingSlot)
	}
	out, err := os.OpenFile(string(f), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		slot = append(slot, make([]byte, pendingSlot-len(slot))...)
	}
	at := int64(number % 2)
	if _, err = out.WriteAt(slot, at*pendingSlot); err == nil {
		err = durable.SyncData(out)
	}
	if err == nil && len(list) == 0 { // the other is the older one, whatever becomes of it
		if _, err = out.WriteAt(make([]byte, pendingSlot), (1-at)*pendingSlot); err == nil {
			err = durable.SyncData(out)
		}
	}
	return errors.Join(err, out.Close())
}

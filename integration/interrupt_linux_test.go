package integration_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/sealstone/sealstone/integration/proctest"
)

// On a terminal a long build shows how far it is in one line, and Ctrl-C in the
// middle ends it with 130 and without a word about the repository.
func TestCtrlCInTheMiddleOfABuild(t *testing.T) {
	t.Parallel()
	proctest.NeedGit(t)
	dir := manyServices(t, 600)
	screen, terminal := openTerminal(t)
	out := filepath.Join(t.TempDir(), "layout")
	cmd := exec.Command(proctest.Program(), "build", dir, "--out", out)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm"}
	cmd.Stderr = terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	r := bufio.NewReader(screen)
	for line := ""; !strings.Contains(line, " of 600 services, "); { // the activations are read first
		var err error
		line, err = r.ReadString('K') // of "erase to the end of the line"
		if err != nil || !strings.HasPrefix(line, "\rbuilding: ") || !strings.Contains(line, " files/s") {
			t.Fatalf("the terminal shows %q (%v)", line, err)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r) // ends when the program does
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if strings.Contains(string(rest), "E_") || !strings.HasSuffix(string(rest), "\r\x1b[K") {
		t.Errorf("and then %q", rest)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a layout was written")
	}
}

// manyServices is a bare repository that takes seconds to build.
func manyServices(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	proctest.Git(t, dir, "init", "-q", "--bare", "-b", "main", ".")
	var in strings.Builder
	file := func(path, text string) {
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
	}
	in.WriteString("commit refs/heads/main\ncommitter A <a@example.com> 1767268800 +0000\ndata 3\nall\n")
	file("sealstone.yaml", "version: 1\nlevels: [env]\nscopes: [prod]\n")
	for s := range n {
		name := fmt.Sprintf("svc-%03d", s)
		file("activations/"+name+".yaml", "service: "+name+"\nactivations:\n  - {scope: prod, release: latest}\n")
		file("services/"+name+"/service.yaml", "owner: x\nschemas: {'config/*': none}\n")
		for d := range 40 {
			file(fmt.Sprintf("services/%s/config/doc-%02d.yaml", name, d), strings.Repeat(fmt.Sprintf("# %d\n", s*d), 20)+fmt.Sprintf("a: %d\nb: [%d, x]\n", s, d))
		}
	}
	cmd := exec.Command("git", "fast-import", "--quiet")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// openTerminal makes a pseudo-terminal: what the program writes to terminal is
// read from screen.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	var number, unlock uint32
	ioctl := func(request uintptr, value *uint32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	ioctl(syscall.TIOCSPTLCK, &unlock)
	ioctl(syscall.TIOCGPTN, &number)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}

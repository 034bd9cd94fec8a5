package stentor_test

// The examples, run as they stand.

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func build(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if said, err := exec.Command("go", "build", "-o", program, "./examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("%s", said)
	}
	return program
}

func TestTheExampleOfQuotesShowsThemUntilItIsInterrupted(t *testing.T) {
	program := build(t, "quotes")
	server := serve(t, "0", "--demo", "--demo-rate", "5k/s")
	process := exec.Command(program, server.url())
	said, err := process.StdoutPipe()
	check(t, err)
	check(t, process.Start())
	lines := bufio.NewScanner(said)
	for range 20 {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "q.demo.") {
			t.Fatal(lines.Text(), lines.Err())
		}
	}
	check(t, process.Process.Signal(os.Interrupt))
	for lines.Scan() {
	}
	check(t, process.Wait())
}

func TestTheExampleOfPublishingHasEveryLineTaken(t *testing.T) {
	program := build(t, "publish")
	server := serve(t, "0")
	process := exec.Command(program, server.url(), "a")
	process.Stdin = strings.NewReader("1\n{\"px\": 2.50}\nnonsense\n")
	said, err := process.CombinedOutput()
	check(t, err)
	if !strings.Contains(string(said), "2 were taken") || !strings.Contains(string(said), "bad_json") {
		t.Fatalf("%s", said)
	}
	if values := server.values(); values["a"] != `{"px": 2.50}` {
		t.Fatal(values)
	}
}

package stentor_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the examples of the README stand in.
const around = `package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"

	"stentor"
)

type books struct{}

func (books) Apply(topic string, raw []byte) {}
func (books) Invalidate(topic string)        {}
func (books) Drop(topic string)              {}

var (
	_ tls.Config
	_ x509.CertPool
	_ http.Client
	_ = os.ReadFile
)

func main() {}
`

// A module of one's own, made as the README says, in which each of its examples compiles as it is printed.
func TestTheExamplesOfTheReadmeCompileInAModuleOfOnesOwn(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	check(t, err)
	examples := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(examples) < 2 {
		t.Fatal("the README has no examples")
	}
	program := around
	for nth, example := range examples {
		body := "var book books\n_ = book\n" + example[1]
		if !strings.Contains(body, "return md.Err()") {
			body += "_ = md\nreturn err\n"
		}
		program += "\nfunc example" + string(rune('A'+nth)) + "(ctx context.Context) error {\n" + body + "}\n"
	}
	folder, here := t.TempDir(), must(os.Getwd())
	check(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(program), 0o644))
	for _, command := range [][]string{
		{"mod", "init", "example.com/new"},
		{"mod", "edit", "-replace", "stentor=" + here},
		{"mod", "tidy"},
		{"build", "-o", os.DevNull, "."},
	} {
		ran := exec.Command("go", command...)
		ran.Dir = folder
		// What it depends on has been fetched, or these tests wouldn't run.
		ran.Env = append(os.Environ(), "GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-modcacherw -buildvcs=false")
		if said, err := ran.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s\n%s", strings.Join(command, " "), err, said, program)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"home.arpa/lab/internal/pages"
	"home.arpa/lab/internal/port"
	"home.arpa/lab/llm-runner/internal/db"
)

// TestMain is also the process that reads a document or a page.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == readDocumentCommand || os.Args[1] == readPageCommand) {
		main()
	}
	testscript.Main(m, map[string]func(){"llm-runner": main})
}

// TestScripts drives the whole binary by the scripts in testdata/script. Beside testscript's own commands there are
//
//	free NAME            puts a free loopback port into $NAME
//	subst FILE NAME      puts the value of $NAME into a file
//	await URL            waits until the URL answers 200
//	found PATTERN [N]    waits until N files (1) match
//	posted URL REGEXP    waits until what the URL answers matches
//	truncate FILE BYTES  cuts a file off
//	schema FILE COPY N   copies a database and says that schema N made it
//	form URL NAME=VALUE...  sends a form as a page does
//	nowhere TEXT DIR     looks that no file below a folder holds a text
//	http METHOD URL [FILE]  sends a request (FILE is the body); stdout is the status, the X-Runner headers and the body
func TestScripts(t *testing.T) {
	example, err := filepath.Abs("runner.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_DATA_HOME", e.WorkDir+"/data")
			e.Setenv("OLLAMA_HOST", "127.0.0.1:1") // nobody answers there
			e.Setenv("EXAMPLE", example)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"free": func(ts *testscript.TestScript, _ bool, args []string) {
				free, err := port.Free()
				ts.Check(err)
				ts.Setenv(args[0], strconv.Itoa(free))
			},
			"subst": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				ts.Check(os.WriteFile(path, []byte(strings.ReplaceAll(ts.ReadFile(path), "$"+args[1], ts.Getenv(args[1]))), 0o600))
			},
			"await": func(ts *testscript.TestScript, _ bool, args []string) {
				deadline := time.Now().Add(time.Minute)
				for {
					resp, err := http.Get(args[0])
					if err == nil {
						resp.Body.Close()
						if resp.StatusCode == http.StatusOK {
							return
						}
					}
					if time.Now().After(deadline) {
						ts.Fatalf("%s does not answer: %v", args[0], err)
					}
					time.Sleep(20 * time.Millisecond) // polling with a deadline: the process has no other way to tell us
				}
			},
			"http": request,
			"form": func(ts *testscript.TestScript, _ bool, args []string) {
				values := url.Values{}
				for _, field := range args[1:] {
					name, value, _ := strings.Cut(field, "=")
					values.Add(name, value)
				}
				resp, err := http.PostForm(args[0], values)
				ts.Check(err)
				resp.Body.Close()
				if resp.StatusCode >= 400 {
					ts.Fatalf("form %s: %s", args[0], resp.Status)
				}
			},
			"nowhere": func(ts *testscript.TestScript, neg bool, args []string) {
				found := ""
				ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(path string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					b, err := os.ReadFile(path)
					if bytes.Contains(b, []byte(args[0])) {
						found = path
					}
					return err
				}))
				if (found == "") == neg {
					ts.Fatalf("%q in %q", args[0], found)
				}
			},
			"found": func(ts *testscript.TestScript, _ bool, args []string) {
				want := 1
				if len(args) > 1 {
					var err error
					want, err = strconv.Atoi(args[1])
					ts.Check(err)
				}
				deadline := time.Now().Add(time.Minute)
				for {
					all, err := filepath.Glob(ts.MkAbs(args[0]))
					ts.Check(err)
					if len(all) == want {
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("%q match %s, not %d files", all, args[0], want)
					}
					time.Sleep(20 * time.Millisecond) // polling with a deadline: a folder has no other way to tell us
				}
			},
			"posted": func(ts *testscript.TestScript, _ bool, args []string) {
				want := regexp.MustCompile(args[1])
				deadline := time.Now().Add(30 * time.Second)
				for {
					resp, err := http.Get(args[0])
					ts.Check(err)
					body, err := io.ReadAll(resp.Body)
					ts.Check(err)
					resp.Body.Close()
					if want.Match(body) {
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("nobody posted %s: %s", args[1], body)
					}
					time.Sleep(50 * time.Millisecond) // polling with a deadline, as above
				}
			},
			"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
				size, err := strconv.ParseInt(args[1], 10, 64)
				ts.Check(err)
				ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
			},
			"schema": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(ts.ReadFile(args[0])), 0o600))
				d, err := db.Open(context.Background(), ts.MkAbs(args[1]))
				ts.Check(err)
				_, err = d.Writer().Exec("PRAGMA user_version = " + args[2])
				ts.Check(err)
				ts.Check(d.Close())
			},
		},
	})
}

func request(ts *testscript.TestScript, neg bool, args []string) {
	var body io.Reader
	if len(args) > 2 {
		body = strings.NewReader(ts.ReadFile(args[2]))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, args[0], args[1], body)
	ts.Check(err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token := ts.Getenv("TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), resp.Status)
	for _, h := range []string{"X-Runner-Provider", "X-Runner-Model", "X-Runner-Rule", "Retry-After", "Location"} {
		if v := resp.Header.Get(h); v != "" {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", h, v)
		}
	}
	fmt.Fprintln(ts.Stdout(), string(text))
	if neg == (resp.StatusCode < 400) {
		ts.Fatalf("%s %s: %s", args[0], args[1], resp.Status)
	}
}

// TestEveryCommandHasHelpWithExamplesAndExitCodes keeps help honest: what it shows, the commands take.
func TestEveryCommandHasHelpWithExamplesAndExitCodes(t *testing.T) {
	for _, cmd := range commands {
		var out strings.Builder
		if code := run(t.Context(), []string{cmd.name, "--help"}, os.Stdin, &out, io.Discard); code != exitOK {
			t.Errorf("%s --help: exit code %d", cmd.name, code)
		}
		for _, want := range []string{"Usage: llm-runner " + cmd.name, "Examples:", "\n  llm-runner " + cmd.name, "Exit codes: 0 ", "--config"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s --help does not say %q", cmd.name, want)
			}
		}
		for _, c := range pages.Examples(cmd.help, "llm-runner") {
			fs, _ := cmd.flags(&call{})
			if c.Words[0] != cmd.name {
				continue // what stands before it: a fake, say
			}
			if err := pages.Fits(fs, cmd.args, c.Words[1:]); err != nil {
				t.Errorf("%s --help shows %q: %v", cmd.name, c.Words, err)
			}
		}
	}
}

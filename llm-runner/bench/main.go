// Command bench measures what a gateway costs: the latency that it adds to a request, and how many requests it passes on,
// next to other ways to the same upstream, on one machine, in one run. docs/bench.md tells the method and holds the result.
//
//	go run ./llm-runner/bench                                   # all, into docs/bench.md
//	go run ./llm-runner/bench -only reverseproxy,llm-runner     # some, to the terminal
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A bench is one run.
type bench struct {
	dir       string // for everything that the contestants write
	binary    string // of llm-runner; "" builds one
	upstream  string // host:port
	processes []*process
}

func main() {
	if len(os.Args) > 2 && (os.Args[1] == "upstream" || os.Args[1] == "proxy") {
		fmt.Fprintln(os.Stderr, serve(os.Args[1], os.Args[2:]))
		os.Exit(1)
	}
	rounds := flag.Int("rounds", 5, "how `often` every contestant is measured")
	only := flag.String("only", "", "comma-separated `names` of "+strings.Join(names(), ", ")+"; the result is not written to -doc")
	binary := flag.String("bin", os.Getenv("LLM_RUNNER_BIN"), "`path` of the llm-runner to measure (default: built from this tree)")
	doc := flag.String("doc", "docs/bench.md", "`file` whose table is replaced")
	jsonFile := flag.String("json", "", "`file` for the result as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var chosen []string
	if *only != "" {
		chosen = strings.Split(*only, ",")
		*doc = ""
	}
	if err := run(ctx, *rounds, chosen, *binary, *doc, *jsonFile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, only []string, binary, doc, jsonFile string) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, binary: binary}
	defer b.stop()
	result, err := b.measure(ctx, rounds, only)
	if err != nil {
		return err
	}
	fmt.Println(result.markdown())
	if jsonFile != "" {
		text, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(jsonFile, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if doc == "" {
		return nil
	}
	return replaceTable(doc, result.markdown())
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// launchSelf starts this program as one of the servers in serve.
func (b *bench) launchSelf(name string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return launch(b.dir, name, nil, self, args...)
}

// serve is this program in the role of the upstream (ADDRESS) or of the yardstick (ADDRESS, URL).
func serve(role string, args []string) error {
	handler := http.Handler(http.HandlerFunc(upstream))
	if role == "proxy" {
		to, err := url.Parse(args[1])
		if err != nil {
			return err
		}
		handler = proxy(to)
	}
	server := &http.Server{Addr: args[0], Handler: handler, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

func (b *bench) stop() {
	for _, p := range b.processes {
		p.stop()
	}
}

// replaceTable puts table between the markers of a document.
func replaceTable(doc, table string) error {
	old, err := os.ReadFile(doc)
	if err != nil {
		return fmt.Errorf("read %s: %w; run this at the top of the repository", doc, err)
	}
	before, rest, found := strings.Cut(string(old), beginMarker)
	_, after, closed := strings.Cut(rest, endMarker)
	if !found || !closed {
		return fmt.Errorf("%s has no lines %s and %s for the table to stand between", doc, beginMarker, endMarker)
	}
	progress("writing %s", filepath.ToSlash(doc))
	return os.WriteFile(doc, []byte(before+beginMarker+"\n\n"+table+"\n"+endMarker+after), 0o644)
}

const (
	beginMarker = "<!-- bench: begin -->"
	endMarker   = "<!-- bench: end -->"
)

// Command ollama runs a real Ollama with tiny models in the foreground, to try llm-runner without a GPU and without a
// download:
//
//	llm-runner/test/setup.sh                                       # once
//	go run ./llm-runner/test/ollama -listen 127.0.0.1:11434        # stop with Ctrl-C
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/llm-runner/test/ollama/ollamatest"
	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:11434", "`address` to listen on")
	flag.Parse()
	if err := serve(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "ollama:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	binary, err := ollamatest.Binary()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tiny-ollama-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := ollamatest.New(binary, dir, address)
	if err != nil {
		return err
	}
	stop, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	starting, cancel := context.WithTimeout(stop, time.Minute)
	defer cancel()
	if err := s.Up(starting); err != nil {
		return err
	}
	defer s.Down()
	if err := s.CreateModels(starting); err != nil {
		return err
	}
	fmt.Printf("Ollama %s on %s with %s\n", ollamatest.Version, s.URL, strings.Join(tinymodel.Names, ", "))
	<-stop.Done()
	return nil
}

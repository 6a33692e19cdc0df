package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// A doorbell is how a command on the same machine reaches the owner. The file that holds it is readable by its user only.
type doorbell struct {
	PID   int    `json:"pid"`
	URL   string `json:"url,omitempty"` // "" while the owner does not serve
	Token string `json:"token,omitempty"`
}

// running returns how to reach the process that serves from a data directory, and whether there is one.
func running(dir string) (doorbell, bool) {
	f, err := os.Open(filepath.Join(dir, "owner"))
	if err != nil {
		return doorbell{}, false
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return doorbell{}, false // nobody holds it: closing f drops our lock again
	}
	var d doorbell
	err = json.NewDecoder(f).Decode(&d)
	return d, err == nil && d.URL != ""
}

// get asks the owner of the data directory for JSON.
func (d doorbell) get(ctx context.Context, path string, into any) error {
	client := upstream.New("llm-runner", d.URL, http.Header{"Authorization": {"Bearer " + d.Token}}, 5*time.Second)
	defer client.CloseIdle()
	resp, err := client.Do(ctx, path, nil, nil) //nolint:bodyclose // ErrorBody does
	if err != nil {
		return err
	}
	body := upstream.ErrorBody(resp)
	if resp.StatusCode != http.StatusOK {
		return &llm.Error{Kind: llm.Unavailable, Provider: "llm-runner", Status: resp.StatusCode, Message: string(body)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	return nil
}

// ask asks the server for JSON; with a body it is a POST.
func (d doorbell) ask(ctx context.Context, path string, body []byte, into any) error {
	client := upstream.New("llm-runner", d.URL, http.Header{"Authorization": {"Bearer " + d.Token}}, 30*time.Second)
	defer client.CloseIdle()
	resp, err := client.Do(ctx, path, nil, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		var told struct{ Error struct{ Message string } }
		if json.Unmarshal(text, &told) == nil && told.Error.Message != "" {
			return fmt.Errorf("%s", told.Error.Message)
		}
		return &llm.Error{Kind: llm.Unavailable, Provider: "llm-runner", Status: resp.StatusCode, Message: string(text)}
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	return nil
}

// send is ask with a method of choice; reading a document may take the server as long as extract.Patience.
func (d doorbell) send(ctx context.Context, method, path string, body []byte, into any) error {
	return d.sendWithin(ctx, extract.Patience+30*time.Second, method, path, body, into)
}

func (d doorbell) sendWithin(ctx context.Context, patience time.Duration, method, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if d.Token != "" {
		req.Header.Set("Authorization", "Bearer "+d.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	if resp.StatusCode >= 300 {
		var told struct{ Error struct{ Message string } }
		if json.Unmarshal(text, &told) != nil || told.Error.Message == "" {
			told.Error.Message = "the server answered " + resp.Status
		}
		if resp.StatusCode == http.StatusServiceUnavailable {
			return &llm.BusyError{Provider: "llm-runner", Kind: llm.Unavailable, Reason: told.Error.Message}
		}
		return errors.New(told.Error.Message)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	return nil
}

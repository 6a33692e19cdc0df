package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/progress"
)

// A client of /mcp reads where projects stand; those that are never sent are left out, by name too.
func TestAnMCPClientReadsTheProjects(t *testing.T) {
	vault := t.TempDir()
	for name, text := range map[string]string{
		"garden.md":          "---\ntype: project\ntitle: Garden\n---\n## Beds\nafter: [[divorce#Papers]]\n- [x] Measure\n- [ ] Dig\n## Planting\nafter: [[#Beds]]\n- [ ] Tomatoes\n",
		"house.md":           "---\ntype: project\ntitle: House\n---\n## Roof\n- [ ] Tiles\n",
		"Private/divorce.md": "---\ntype: project\ntitle: Divorce\n---\n## Papers\n- [ ] Sign\n",
	} {
		file := filepath.Join(vault, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "vault: {path: %q, never_send: [Private]}\n", vault), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Config: config, Data: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	at := started(t, c)
	at.until(t, "/api/progress", func(b []byte) bool {
		return strings.Count(string(b), `"project": "`)+strings.Count(string(b), `"project":"`) > 3
	})
	client, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: string(at) + "/mcp", HTTPClient: http.DefaultClient}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	call := func(arguments map[string]any) string {
		t.Helper()
		r, err := client.CallTool(context.Background(), &mcp.CallToolParams{Name: "progress", Arguments: arguments})
		if err != nil || r.IsError || len(r.Content) == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Content[0].(*mcp.TextContent).Text
	}
	all := call(nil)
	for _, want := range []string{"1 of the projects are never sent", "Garden  1 of 3\n", "1/2   Beds  (waits for a phase of a project that is never sent)", "Planting  (waits for Beds)", "House  0 of 1"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in:\n%s", want, all)
		}
	}
	one := call(map[string]any{"project": "gard"})
	if !strings.Contains(one, "garden.md, line 8, Beds: - [ ] Dig\n") || strings.Contains(one, "House") {
		t.Error(one)
	}
	for _, text := range []string{all, one} {
		if strings.Contains(text, "Divorce") || strings.Contains(text, "Papers") || strings.Contains(text, "Sign") {
			t.Error(text)
		}
	}
}

// Where no server runs, the command reads the notes itself, and waits for git as far as there is one.
func TestProgressAsJSONSaysWhereTheWayUpComesFrom(t *testing.T) {
	vault := t.TempDir()
	if err := os.WriteFile(filepath.Join(vault, "garden.md"), []byte("---\ntype: project\n---\n# Garden\n## Beds\n- [x] Measure ✅ "+time.Now().AddDate(0, 0, -20).Format(time.DateOnly)+"\n- [ ] Dig\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "vault: {path: %q}\n", vault), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Config: config, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	board, err := readBoard(t.Context(), c, true)
	if err != nil || len(board.Ups) != 1 || len(board.Ups[0].Days) != 2 || board.Ups[0].Days[0].From != progress.FromDates || board.Ups[0].Days[1].From != progress.FromSeen || board.Ups[0].Says == "" {
		t.Errorf("%+v, %v", board.Ups, err)
	}
	if board, err := readBoard(t.Context(), c, false); err != nil || len(board.Rows) != 1 || board.Ups != nil {
		t.Errorf("who does not show them waits for them: %+v, %v", board, err)
	}
}

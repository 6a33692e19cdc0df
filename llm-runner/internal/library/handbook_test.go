package library

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/docs"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// The handbook is the vault of whoever has none: a question typed into the page on the first evening must find its page.
func TestTheHandbookAnswers(t *testing.T) {
	v := NewVault(open(t, Embedded("handbook", docs.FS)), nil)
	for _, tt := range []struct{ question, page, heading string }{
		{"How do I connect Ollama?", "connect-a-model.md", "Ollama"},
		{"how to use groq", "connect-a-model.md", "Groq"},
		{"Where do I get a Gemini key?", "connect-a-model.md", "Gemini"},
		{"connect anthropic", "connect-a-model.md", "Anthropic"},
		{"Can I use an OpenAI-compatible server like vLLM?", "connect-a-model.md", "Any OpenAI-compatible server"},
		{"What happens when davas is down?", "routing.md", "When a machine is down"},
		{"What happens when a rate limit is used up?", "routing.md", "When a rate limit is used up"},
		{"What is project mode?", "routing.md", "Project mode"},
		{"Is there a silent fallback?", "routing.md", "Fallback"},
		{"Which routing rules are there?", "routing.md", "The rules"},
		{"Where is my data kept?", "configuration.md", "Where data is kept"},
		{"Which exit codes are there?", "commands.md", "Exit codes"},
		{"exit code 3", "commands.md", "Exit codes"},
		{"Which files are read from my vault?", "first-steps.md", "Which files are read"},
		{"How do I point it at my notes?", "first-steps.md", "Point it at your notes"},
		{"How do I open it to other machines?", "security.md", "Open it to other machines"},
		{"What leaves this machine?", "security.md", "What leaves this machine"},
		{"Which headers does the response have?", "api.md", "Response headers"},
		{"curl example for embeddings", "api.md", "Embeddings"},
		{"How do I stop an answer?", "chat.md", "Stop, retry, edit"},
		{"Can I close the tab while it answers?", "chat.md", "Close the tab"},
		{"What does it cost?", "books.md", "What it costs"},
		{"prometheus metrics", "books.md", "Prometheus metrics"},
		{"How do I inject a fault?", "fakes.md", "Inject a fault"},
		{"The address is already in use", "troubleshooting.md", "The address is already in use"},
		{"How do I back up my data?", "troubleshooting.md", "Back up and restore"},
		{"How do I restore a snapshot?", "commands.md", "restore"},
		{"How do I back up and restore?", "troubleshooting.md", "Back up and restore"},
		{"How do several machines share a PostgreSQL database?", "configuration.md", "Several machines"},
		{"a worker was killed, when are its jobs taken over?", "jobs.md", "When a worker dies"},
		{"PostgreSQL does not answer", "troubleshooting.md", "PostgreSQL does not answer"},
		{"What is a hold?", "routing.md", "Holds"},
		{"The disk is full", "troubleshooting.md", "The disk is full"},
		{"The database is damaged", "troubleshooting.md", "The database is damaged"},
		{"How do I send alerts to Discord?", "alerts.md", "Send alerts to Discord"},
		{"Which incidents are told?", "alerts.md", "Which incidents are told"},
		{"configuration.md", "configuration.md", "Configuration"},
		{"How do I search my notes?", "library.md", "Search your notes"},
		{"How do I filter a search by tag?", "library.md", "Search filters"},
		{"How do I leave files out of the index?", "library.md", "Leave files out of the index"},
		{"Why does a passage come first?", "library.md", "Why a passage comes first"},
		{"How do I measure the library?", "library.md", "Measure the library"},
	} {
		t.Run(tt.question, func(t *testing.T) {
			a, err := llm.Collect(v.Stream(t.Context(), asks(tt.question)))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(a.Message.Text(), saysUnknown) || len(a.Citations) == 0 {
				t.Fatalf("the notes are said not to say:\n%s", a.Message.Text())
			}
			if got := a.Citations[0]; got.Path != tt.page || !slices.Contains(got.Heading, tt.heading) {
				t.Errorf("the first of %d is %s %q:\n%s", len(a.Citations), got.Path, got.Heading, a.Message.Text())
			}
		})
	}
}

func TestTheHandbookDoesNotPretend(t *testing.T) {
	v := NewVault(open(t, Embedded("handbook", docs.FS)), nil)
	for _, question := range []string{
		"What is the capital of France?",
		"How do I bake sourdough bread?",
		"How do I connect a printer?",
		"Who won the football match yesterday?",
		"Which wine goes with davas?",
		"Wann fährt der nächste Zug nach Hamburg?",
		"What is the birthday of my sister?",
		"How tall is Mount Everest?",
		"How do I renew my passport?",
		"xyzzy",
	} {
		a, err := llm.Collect(v.Stream(t.Context(), asks(question)))
		if err != nil {
			t.Fatal(err)
		}
		if text := a.Message.Text(); !strings.HasPrefix(text, saysUnknown) {
			t.Errorf("%s\n%s", question, text)
		}
	}
}

func asks(question string) llm.Request {
	return llm.Request{Model: Model, Messages: []llm.Message{llm.Says(llm.User, question)}}
}

// open returns a library of source, read to the end.
func open(t testing.TB, source Source) *Library {
	t.Helper()
	l := unread(t, source)
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func unread(t testing.TB, source Source) *Library {
	t.Helper()
	l, err := Open(t.Context(), database(t), source)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func database(t testing.TB) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

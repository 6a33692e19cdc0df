package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// errorsOnly sends a word for each error that is logged.
type errorsOnly chan string

func (c errorsOnly) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (c errorsOnly) WithAttrs([]slog.Attr) slog.Handler           { return c }
func (c errorsOnly) WithGroup(string) slog.Handler                { return c }
func (c errorsOnly) Handle(_ context.Context, r slog.Record) error {
	select {
	case c <- r.Message:
	default:
	}
	return nil
}

// A database that refuses for a while, wherever a run is, costs nothing but the while: nothing is done twice, and the agent goes on being due.
func TestWhatCannotBeWrittenIsWrittenLater(t *testing.T) {
	for at, when := range map[string]string{
		"the run begins":    `agent_runs WHEN NEW.state = 'running'`,
		"its work ends":     `agent_runs WHEN NEW.state IN ('delivering', 'done')`,
		"a post begins":     `agent_deliveries WHEN NEW.state = 'sending' AND NEW.sink = 'discord'`,
		"a post is through": `agent_deliveries WHEN NEW.state = 'done' AND NEW.sink = 'discord'`,
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{"hello": daily})
			said := make(errorsOnly, 1)
			b.log = slog.New(said)
			b.start()
			write := func(query string) {
				t.Helper()
				if err := b.db.Tx(t.Context(), func(tx *transaction) error {
					_, err := tx.ExecContext(t.Context(), query)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			write(`CREATE TRIGGER refused BEFORE UPDATE OF state ON ` + when + ` BEGIN SELECT RAISE(ABORT, 'refused'); END`)
			r, err := b.Start(t.Context(), "hello", false, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.pass(t.Context(), b.clock()); err != nil {
				t.Fatal(err)
			}
			for heard := false; !heard; {
				changed := b.Changed()
				if _, err := b.pass(t.Context(), b.clock()); err != nil {
					t.Fatal(err)
				}
				select {
				case <-said:
					heard = true
				case <-changed:
				case <-time.After(30 * time.Second):
					t.Fatal("nothing was refused")
				}
			}
			write(`DROP TRIGGER refused`)
			b.settle()
			if x := b.detail(r.ID); x.State != Done || b.model.count() != 1 || len(b.posts.posts()) != 1 {
				t.Errorf("%s (%s), %d questions to the model, posts %q", x.State, x.Reason, b.model.count(), b.posts.posts())
			}
			if x := b.ask("hello", false); x.State != Done {
				t.Errorf("the next run: %s", x.State)
			}
		})
	}
}

// What an agent's model says is written as it is said, and runs nowhere.
func TestTheNoteOfAnAgentRunsNothing(t *testing.T) {
	b := newBench(t, nil).start()
	d := Delivery{Run: 7, Sink: "vault", Name: "briefing/today", Text: "---\n" + owned("briefing", 7) + "title: \"<% x %>\"\n---\n\n```dataviewjs\nx()\n```\n\nFerns `$= x()`.\n"}
	at, err := b.writeNote(&d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.writeNote(&d) // after a death
	if err != nil || again != at {
		t.Errorf("%q and %q, %v", at, again, err)
	}
	text, err := os.ReadFile(filepath.Join(b.vault, at))
	const want = "title: \"< % x %>\"\n---\n\n```text dataviewjs\nx()\n```\n\nFerns `\\$= x()`.\n"
	if err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("%q, %v", text, err)
	}
}

// Two topics that come to one name of a file are two notes, and a delivery that is made again after a death is one.
func TestNotesOfOneNameAreAllKept(t *testing.T) {
	b := newBench(t, nil).start()
	r := Run{ID: 7, Agent: "research"}
	for range 2 {
		for _, title := range []string{"C++ news", "C# news"} {
			d := Delivery{Run: 7, Sink: "vault", Name: "research/C news", Text: "---\n" + owned(r.Agent, r.ID) + "title: \"" + title + "\"\n---\n\n# " + title + "\n"}
			at, err := b.writeNote(&d)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(b.vault, at))
			if err != nil || string(text) != d.Text {
				t.Errorf("%s says %q (%v)", at, text, err)
			}
		}
	}
	if all := b.notes(); len(all) != 2 {
		t.Errorf("notes %q", all)
	}
}

// A run that was cancelled can be deleted before what was being sent has come to its end: then there is nothing to mark, and nothing to try again.
func TestADeliveryOfARunThatIsGoneEnds(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	d := b.ask("hello", false).Deliveries[0]
	if err := b.db.Tx(t.Context(), func(tx *transaction) error {
		_, err := tx.ExecContext(t.Context(), `DELETE FROM agent_runs WHERE id = ?`, d.Run)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.keepOn(ctx, "hello", &d); err != nil {
		t.Error(err)
	}
}

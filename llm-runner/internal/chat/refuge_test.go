package chat

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// refuse has the database refuse writes, or take them again.
func refuse(t *testing.T, d *db.DB, yes bool) {
	t.Helper()
	value := "0"
	if yes {
		value = "1"
	}
	if _, err := d.Writer().Exec("PRAGMA query_only = " + value); err != nil {
		t.Fatal(err)
	}
}

// back waits until nothing is in memory.
func back(t *testing.T, s *Service) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for s.at(func(*refuge) bool { return true }) != s.db {
		select {
		case <-deadline:
			t.Fatal("the conversations did not move back")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestWhileTheDiskRefusesConversationsGoOnInMemoryAndMoveBack(t *testing.T) {
	s, p, d, stop := openAt(t, filepath.Join(t.TempDir(), db.Name))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go d.Watch(ctx, func(*db.Trouble) {}) //nolint:errcheck // it returns ctx's error

	send := func(chat, parent int64, text, key string) Turn {
		t.Helper()
		turn, err := s.Send(t.Context(), chat, parent, text, Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return turn
	}
	finish := func(turn Turn, words ...string) {
		t.Helper()
		x := <-p.asked
		x.text(words...)
		x.done()
		if text, last, _ := follow(t, s, turn.ID, 0); last.State != Finished || text != strings.Join(words, "") {
			t.Errorf("%q, %+v", text, last)
		}
	}
	// One conversation is on disk, and an answer is arriving when the disk begins to refuse.
	first := send(0, 0, "one", "k1")
	finish(first, "uno")
	second := send(first.Chat, first.ID, "two", "k2")
	x := <-p.asked
	x.text("dos")
	for pieces := 0; pieces == 0; { // until it is on disk
		if err := d.Read().QueryRow(`SELECT count(*) FROM turn_pieces`).Scan(&pieces); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, d, true)
	x.text(" y medio")
	x.done()
	if text, last, _ := follow(t, s, second.ID, 0); last.State != Finished || text != "dos y medio" {
		t.Errorf("%q, %+v", text, last)
	}
	// Another question in it, a new conversation, and the same form sent twice.
	third := send(first.Chat, second.ID, "three", "k3")
	finish(third, "tres")
	fresh := send(0, 0, "new", "k4")
	finish(fresh, "nue", "vo")
	if again := send(0, 0, "new", "k4"); again.ID != fresh.ID {
		t.Errorf("the same form made turn %d", again.ID)
	}
	if err := s.Delete(t.Context(), fresh.Chat); !errors.Is(err, ErrUnsaved) {
		t.Errorf("deleted: %v", err)
	}
	if err := s.Rename(t.Context(), fresh.Chat, "renamed"); err != nil {
		t.Error(err)
	}
	check := func(when string) {
		t.Helper()
		all, err := s.Chats(t.Context(), "", 10)
		if err != nil || len(all) != 2 || all[0].ID != fresh.Chat || all[0].Title != "renamed" || all[1].Leaf != third.ID {
			t.Errorf("%s: %+v, %v", when, all, err)
		}
		branch, err := s.Branch(t.Context(), first.Chat)
		var said []string
		for _, m := range branch {
			said = append(said, m.Text)
		}
		if got := strings.Join(said, "|"); err != nil || got != "one|uno|two|dos y medio|three|tres" {
			t.Errorf("%s: %q, %v", when, got, err)
		}
		if m, err := s.Message(t.Context(), fresh.ID); err != nil || m.Text != "nuevo" || m.Turn.State != Finished {
			t.Errorf("%s: %+v, %v", when, m, err)
		}
	}
	check("in memory")
	refuse(t, d, false)
	back(t, s)
	check("back on disk")
	var pieces, keys int
	if err := d.Read().QueryRow(`SELECT (SELECT count(*) FROM turn_pieces), (SELECT count(*) FROM messages WHERE sent_key IS NOT NULL)`).Scan(&pieces, &keys); err != nil || pieces != 0 || keys != 4 {
		t.Errorf("%d pieces, %d keys, %v", pieces, keys, err)
	}
	if found, err := s.Chats(t.Context(), "nuevo", 10); err != nil || len(found) != 1 {
		t.Errorf("what was said in memory cannot be found: %v, %v", found, err)
	}
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
}

func TestWhatIsInMemoryMovesBackWhenTheProgramEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	s, p, d, stop := openAt(t, path)
	refuse(t, d, true)
	turn := answered(t, s, p, 0, 0, "question", "answer")
	refuse(t, d, false)
	stop()
	s, _, _, _ = openAt(t, path)
	if m, err := s.Message(t.Context(), turn.ID); err != nil || m.Text != "answer" {
		t.Errorf("%+v, %v", m, err)
	}
}

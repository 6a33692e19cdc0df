package library

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/db"
)

// versionOf tells two states of a note apart, also where an older copy of the database counts its rows anew.
func versionOf(note, first int64, hash []byte) string {
	return fmt.Sprintf("%d.%d.%x", note, first, hash[:min(8, len(hash))])
}

// versions returns the version of each note of a collection that has passages, by path.
func versions(ctx context.Context, d *db.DB, collection string) (map[string]string, error) {
	return db.Map(ctx, d.Read(), "read library", func(row *sql.Rows) (path, version string, err error) {
		var id, first int64
		var hash sql.RawBytes
		err = row.Scan(&path, &id, &hash, &first)
		return path, versionOf(id, first, hash), err
	}, `SELECT n.path, n.id, n.hash, (SELECT min(p.id) FROM library_passages p WHERE p.note_id = n.id)
		FROM library_notes n WHERE n.collection = ? AND n.skipped = ''`, collection)
}

// meant returns the notes at the first of paths with their passages, as many paths as have about size bytes of text together, and how many
// paths that were. Frontmatter and what is empty has no meaning. Paths where no note is are left out.
func meant(ctx context.Context, d *db.DB, collection string, paths []string, size int) (all []meantNote, n int, err error) {
	for ; n < len(paths) && size > 0; n++ {
		note, err := meantAt(ctx, d, collection, paths[n])
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read library: %w", err)
		}
		for _, p := range note.passages {
			size -= len(p.body)
		}
		all = append(all, note)
	}
	return all, n, nil
}

// meantAt returns the note at a path with its passages, as it was at one moment.
func meantAt(ctx context.Context, d *db.DB, collection, path string) (meantNote, error) {
	note, id, err := meantHead(ctx, d, collection, path)
	for range 10 { // in the middle of a change its old passages are gone, or its new ones there
		if err != nil {
			return note, err
		}
		if note.passages, err = meantPassages(ctx, d, id); err != nil {
			return note, err
		}
		now, nowID, err := meantHead(ctx, d, collection, path)
		if err != nil || now.version == note.version {
			return note, err
		}
		note, id = now, nowID
	}
	return note, fmt.Errorf("%s changes all the time", path)
}

func meantHead(ctx context.Context, d *db.DB, collection, path string) (note meantNote, id int64, err error) {
	note.path = path
	var first int64
	var hash []byte
	err = d.Read().QueryRowContext(ctx, `SELECT n.id, n.hash, n.title, n.type, n.tags, n.day, (SELECT min(p.id) FROM library_passages p WHERE p.note_id = n.id)
		FROM library_notes n WHERE n.collection = ? AND n.path = ? AND n.skipped = ''`, collection, path).
		Scan(&id, &hash, &note.title, &note.kind, &note.tags, &note.day, &first)
	note.version = versionOf(id, first, hash)
	return note, id, err
}

// meantPassages returns the passages of a note that have a meaning.
func meantPassages(ctx context.Context, d *db.DB, note int64) (all []meantPassage, err error) {
	err = db.Each(ctx, d.Read(), "", func(row *sql.Rows) error {
		var p meantPassage
		err := row.Scan(&p.id, &p.heading, &p.body)
		if strings.TrimSpace(p.body) != "" {
			all = append(all, p)
		}
		return err
	}, `SELECT id, heading, body FROM library_passages WHERE note_id = ? AND front = 0 ORDER BY id`, note)
	return all, err
}

// pathsOf returns the paths of notes.
func pathsOf(ctx context.Context, d *db.DB, notes []uint32) ([]string, error) {
	marks, args := db.In(notes)
	return db.All(ctx, d.Read(), "search library", db.Column[string], `SELECT path FROM library_notes WHERE id IN (`+marks+`)`, args...)
}

// sampled returns about n passages of a collection, spread over it, each with its note. Short ones say too little to be compared.
func sampled(ctx context.Context, d *db.DB, collection string, n int) (all []meantNote, err error) {
	long, err := db.All(ctx, d.Read(), "search library", db.Column[int64], `SELECT p.id FROM library_passages p JOIN library_notes n ON n.id = p.note_id
		WHERE n.collection = ? AND p.front = 0 AND p.end_byte - p.start_byte > 200 ORDER BY p.id`, collection)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(long); i += max(1, (len(long)+n-1)/n) {
		var note meantNote
		var p meantPassage
		err := d.Read().QueryRowContext(ctx, `SELECT n.path, n.title, p.id, p.heading, p.body FROM library_passages p JOIN library_notes n ON n.id = p.note_id
			WHERE p.id = ?`, long[i]).Scan(&note.path, &note.title, &p.id, &p.heading, &p.body)
		if errors.Is(err, sql.ErrNoRows) {
			continue // it was changed just now
		}
		if err != nil {
			return nil, fmt.Errorf("read library: %w", err)
		}
		note.passages = []meantPassage{p}
		all = append(all, note)
	}
	return all, nil
}

// readTrust returns what was measured of a model and a collection.
func readTrust(ctx context.Context, d *db.DB, collection, model string) (t trust, ok bool, err error) {
	err = d.Read().QueryRowContext(ctx, `SELECT trust, notes FROM library_trust WHERE collection = ? AND model = ?`, collection, model).Scan(&t.weight, &t.notes)
	if errors.Is(err, sql.ErrNoRows) {
		return trust{unmeasured, 0}, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("read library: %w", err)
	}
	return t, true, nil
}

func writeTrust(ctx context.Context, d *db.DB, collection, model string, t trust) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO library_trust (collection, model, trust, notes) VALUES (?,?,?,?)
			ON CONFLICT (collection, model) DO UPDATE SET trust = excluded.trust, notes = excluded.notes`, collection, model, t.weight, t.notes)
		return err
	})
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return nil
}

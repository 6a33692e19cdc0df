package documents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/extract"
)

// Write keeps documents, each in the place of the one with its path, all or none.
func (s Store) Write(ctx context.Context, collection string, documents ...Document) error {
	d := s.DB
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		if err := d.LockName(ctx, tx, "library documents"); err != nil {
			return err
		}
		var rev int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(rev), 0) FROM library_documents`).Scan(&rev); err != nil {
			return err
		}
		rev = max(rev+1, time.Now().UnixMilli()) // never one again that a removed document had
		insert, err := tx.PrepareContext(ctx, `INSERT INTO library_documents (collection, path, rev, title, url, type, tags, day, format, pages, remarks, added_at, text)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (collection, path) DO UPDATE SET rev = excluded.rev, title = excluded.title, url = excluded.url,
			type = excluded.type, tags = excluded.tags, day = excluded.day, format = excluded.format, pages = excluded.pages, remarks = excluded.remarks,
			added_at = excluded.added_at, text = excluded.text`)
		if err != nil {
			return err
		}
		defer insert.Close()
		for _, x := range documents {
			day := ""
			if !x.Time.IsZero() {
				day = x.Time.Format(time.DateOnly)
			}
			if _, err := insert.ExecContext(ctx, collection, x.Path, rev, x.Title, x.URL, x.Type, strings.Join(x.Tags, "\n"), day, string(x.Format),
				JoinPages(x.Pages), strings.Join(x.Remarks, "\n"), time.Now().UnixMilli(), string(x.Text)); err != nil {
				return fmt.Errorf("%s: %w", x.Path, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep documents: %w", err)
	}
	return nil
}

// Forget removes a document, and says whether there was one.
func (s Store) Forget(ctx context.Context, collection, path string) (had bool, err error) {
	err = s.DB.Tx(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM library_documents WHERE collection = ? AND path = ?`, collection, path)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		had = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("forget document: %w", err)
	}
	return had, nil
}

// One returns a document; fs.ErrNotExist where there is none.
func (s Store) One(ctx context.Context, collection, path string) (x Document, err error) {
	var tags, day, format, pages, remarks, text string
	err = s.DB.Read().QueryRowContext(ctx, `SELECT title, url, type, tags, day, format, pages, remarks, text FROM library_documents
		WHERE collection = ? AND path = ?`, collection, path).Scan(&x.Title, &x.URL, &x.Type, &tags, &day, &format, &pages, &remarks, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return x, fmt.Errorf("%s in %s: %w", path, collection, fs.ErrNotExist)
	}
	if err != nil {
		return x, fmt.Errorf("read document: %w", err)
	}
	x.Path, x.Tags, x.Format, x.Pages, x.Remarks, x.Text = path, Lines(tags), extract.Format(format), SplitPages(pages), Lines(remarks), []byte(text)
	x.Time, _ = time.Parse(time.DateOnly, day) // the zero time, where it has none
	return x, nil
}

// Added is when a document was put; the zero time where there is none.
func (s Store) Added(ctx context.Context, collection, path string) (time.Time, error) {
	var at int64
	err := s.DB.Read().QueryRowContext(ctx, `SELECT added_at FROM library_documents WHERE collection = ? AND path = ?`, collection, path).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when a document was put: %w", err)
	}
	return time.UnixMilli(at), nil
}

// List returns what is kept in a collection, the newest first; "" in all.
func (s Store) List(ctx context.Context, collection string) ([]Stored, error) {
	return db.All(ctx, s.DB.Read(), "list documents", func(row *sql.Rows) (x Stored, err error) {
		var added int64
		var pages, remarks string
		err = row.Scan(&x.Collection, &x.Path, &x.Title, &x.URL, &x.Format, &x.Day, &added, &x.Bytes, &pages, &remarks)
		x.Added, x.Pages, x.Remarks = time.UnixMilli(added), len(SplitPages(pages)), Lines(remarks)
		return x, err
	}, `SELECT collection, path, title, url, format, day, added_at, octet_length(text), pages, remarks
		FROM library_documents WHERE collection = ? OR ? = '' ORDER BY added_at DESC, path`, collection, collection)
}

// Marks returns what changes with every change.
func (s Store) Marks(ctx context.Context) (m Marks, err error) {
	err = s.DB.Read().QueryRowContext(ctx, `SELECT count(*), coalesce(max(rev), 0) FROM library_documents`).Scan(&m.Count, &m.Rev)
	if err != nil {
		return m, fmt.Errorf("read documents: %w", err)
	}
	return m, nil
}

// Revs returns the revision of every document, by collection and path.
func (s Store) Revs(ctx context.Context) (map[string]map[string]int64, error) {
	all := map[string]map[string]int64{}
	err := db.Each(ctx, s.DB.Read(), "read documents", func(row *sql.Rows) error {
		var collection, path string
		var rev int64
		err := row.Scan(&collection, &path, &rev)
		if all[collection] == nil {
			all[collection] = map[string]int64{}
		}
		all[collection][path] = rev
		return err
	}, `SELECT collection, path, rev FROM library_documents`)
	return all, err
}

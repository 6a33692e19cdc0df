package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// shared is what a DB has in PostgreSQL, where several processes work on one database.
type shared struct {
	url    string // holds the password
	config *pgx.ConnConfig
	worker string
	bus    bus
	away   atomic.Pointer[Trouble] // the server does not answer; nil: it does
}

// patience is how long a connection may take to be made; the server is one of ours, and not far.
const patience = 5 * time.Second

// OpenPostgres opens the database at url (postgres://USER:PASSWORD@HOST:PORT/NAME) and runs the migrations it lacks, all or
// none of them; processes that start together take turns. A database of a newer program is refused untouched. No error
// holds the password.
func OpenPostgres(ctx context.Context, url string) (*DB, error) {
	d, err := connect(url)
	if err != nil {
		return nil, err
	}
	if err := d.migratePostgres(ctx); err != nil {
		d.w.Close()
		return nil, fmt.Errorf("open database %s: %w", d.path, plain(err))
	}
	return d, nil
}

// plain makes one line of what pgx says when it cannot connect: the server's refusal, or the network's.
func plain(err error) error {
	var failed *pgconn.ConnectError
	var refused *pgconn.PgError
	var network *net.OpError
	switch {
	case !errors.As(err, &failed):
		return err
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &network):
		return network
	}
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// OpenPostgresRead opens the database at url as it is: it never migrates. It is fs.ErrNotExist where no migration ever ran.
func OpenPostgresRead(ctx context.Context, url string) (*DB, error) {
	d, err := connect(url)
	if err != nil {
		return nil, err
	}
	var made bool
	err = d.w.QueryRowContext(ctx, `SELECT to_regclass('schema_version') IS NOT NULL`).Scan(&made)
	if err == nil && !made {
		err = fs.ErrNotExist
	}
	if err != nil {
		d.w.Close()
		return nil, fmt.Errorf("open database %s: %w", d.path, plain(err))
	}
	return d, nil
}

// CheckPostgresURL says what is wrong with a URL, without its password.
func CheckPostgresURL(url string) error {
	_, err := parse(url)
	return err
}

func parse(url string) (*pgx.ConnConfig, error) {
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, errors.New("is not the URL of a PostgreSQL database: write postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	config, err := pgx.ParseConfig(url)
	if err != nil { // its text may repeat the password
		return nil, errors.New("cannot be read: write postgres://USER:PASSWORD@HOST:5432/NAME, special characters of the password as %XX")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = patience
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "llm-runner"
	}
	return config, nil
}

func connect(url string) (*DB, error) {
	config, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("the database's URL %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	s := &shared{url: url, config: config, worker: host + "-" + strings.ToLower(rand.Text()[:8])}
	h := s.open(16)
	return &DB{path: net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))) + "/" + config.Database, w: h, r: h, shared: s}, nil
}

// open returns a handle that speaks our SQL.
func (s *shared) open(conns int) *sql.DB {
	h := sql.OpenDB(newConnector(s.config))
	h.SetMaxOpenConns(conns)
	h.SetMaxIdleConns(min(conns, 4))
	h.SetConnMaxIdleTime(time.Minute)
	return h
}

// NewPool opens one more pool on the same PostgreSQL database, for an owner that closes what it is given.
func (d *DB) NewPool(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(d.shared.url)
	if err != nil {
		return nil, errors.New("open database: its URL cannot be read")
	}
	config.ConnConfig.ConnectTimeout = d.shared.config.ConnectTimeout
	config.MaxConns = max(config.MaxConns, 12)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", d.path, err)
	}
	return pool, nil
}

// Worker names this process among those that share a PostgreSQL database; no two ever have the same name. In SQLite,
// which has one owner, it is "".
func (d *DB) Worker() string {
	if d.shared == nil {
		return ""
	}
	return d.shared.worker
}

// Shared says that other processes work on the same database.
func (d *DB) Shared() bool { return d.shared != nil }

// Lock ends a SELECT whose rows are going to be changed: in PostgreSQL nobody else changes them before the transaction ends;
// in SQLite nobody writes beside a transaction anyway.
func (d *DB) Lock() string {
	if d.shared == nil {
		return ""
	}
	return " FOR UPDATE"
}

// LockFree is Lock for a SELECT of one row of many that does not wait: rows that others have locked are not there.
func (d *DB) LockFree() string {
	if d.shared == nil {
		return ""
	}
	return " FOR UPDATE SKIP LOCKED"
}

// Taken says that a row was not written because another one has its key.
func Taken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" // unique_violation (postgresql.org/docs/current/errcodes-appendix.html)
}

// LockName waits until no other transaction of a shared database has locked the same name, and locks it until tx ends. In
// SQLite writers take turns anyway.
func (d *DB) LockName(ctx context.Context, tx *sql.Tx, name string) error {
	if d.shared == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?)`, lockKey(name)); err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	return nil
}

// lockKey makes the number that PostgreSQL locks of a name.
func lockKey(name string) int64 {
	h := fnv.New64a()
	h.Write([]byte("llm-runner " + name))
	return int64(h.Sum64()) //nolint:gosec // any 64 bits do
}

func (d *DB) migratePostgres(ctx context.Context) error {
	all, err := load(migrations, postgresDir)
	if err != nil {
		return err
	}
	newest := all[len(all)-1].version
	return d.Tx(ctx, func(tx *sql.Tx) error {
		if err := d.LockName(ctx, tx, "migrations"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)`); err != nil {
			return err
		}
		have, err := schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		if have > newest {
			return fmt.Errorf("made by a newer version of this program (schema %d, this one knows %d): run that version on every machine", have, newest)
		}
		for _, m := range all {
			if m.version <= have {
				continue
			}
			if _, err := tx.ExecContext(ctx, m.sql); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
			d.Applied = append(d.Applied, m.version)
		}
		if have == newest {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM schema_version`); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO schema_version (version) VALUES (?)`, newest)
		return err
	})
}

// schemaVersion returns the newest migration that ran; 0: none did.
func schemaVersion(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (v int, err error) {
	if err := q.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

// Package vector finds the nearest of many vectors. A Store keeps collections of documents, each with its points; Local
// keeps them in files of this machine and needs nothing else; packages qdrant and pgvector keep them in servers.
//
// Local holds one bit for each dimension in memory. A search counts differing bits against all points, weighs the best few
// thousand by the signs that the bits are, and reads the floats of the best few hundred from the disk: what comes first is
// decided by exact cosines.
package vector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Stamp says how the vectors of a collection were made. Vectors with different stamps cannot be compared, so they are
// never in one collection.
type Stamp struct {
	Model      string `json:"model"`
	Dimensions int    `json:"dimensions"`
	Prefix     string `json:"prefix"` // what went before each text: "search_document: "
}

// maxDimensions is far above what any embedding model makes (4096), and bounds what a damaged file can ask for.
const maxDimensions = 1 << 15

// Validate returns all faults of s.
func (s Stamp) Validate() error {
	var errs []error
	if s.Model == "" {
		errs = append(errs, errors.New("model: is missing"))
	}
	if s.Dimensions < 1 || s.Dimensions > maxDimensions {
		errs = append(errs, fmt.Errorf("dimensions: %d is not between 1 and %d", s.Dimensions, maxDimensions))
	}
	return errors.Join(errs...)
}

// Hash returns 16 letters that differ between stamps, for the names of files and collections.
func (s Stamp) Hash() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("vector: " + err.Error()) // strings and numbers always can be written
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,40}$`)

// CheckName says what is wrong with a collection's name: it becomes part of file names and addresses.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("collection %q: a name is 1 to 41 small letters, digits, - and _, a letter first", name)
	}
	return nil
}

func (s Stamp) String() string {
	return fmt.Sprintf("%s with %d dimensions and prefix %q", s.Model, s.Dimensions, s.Prefix)
}

// ErrNone says that there is no such collection yet.
var ErrNone = errors.New("no vectors are stored yet; index something first")

// A StampError says that vectors of another model were offered or asked for.
type StampError struct{ Have, Want Stamp }

func (e *StampError) Error() string {
	return fmt.Sprintf("open vectors: they are of %s, not of %s; build a collection of the new model and switch to it", e.Have, e.Want)
}

// A Store holds collections by name, each of which serves one Stamp at a time. To change the model, Build a collection
// with the new stamp beside the old one, fill it, and Switch. It is safe for concurrent use.
type Store interface {
	// Serving returns the collection that answers under name, or ErrNone.
	Serving(ctx context.Context, name string) (Collection, error)
	// Build returns the collection of name with this stamp: the serving one where that has it, one that was begun
	// earlier, or a new and empty one.
	Build(ctx context.Context, name string, s Stamp) (Collection, error)
	// Switch has the collection of name with this stamp serve from now on, at one stroke, and removes the others of that
	// name: searches in them end with an error. ErrNone if it was never built.
	Switch(ctx context.Context, name string, s Stamp) error
	Close() error
}

// A Collection holds documents of one Stamp. It belongs to its Store and is safe for concurrent use.
type Collection interface {
	Stamp() Stamp
	// Replace puts documents with their points in place of what had these names. Of one that a dead process left half-way,
	// Documents still tells the old Version. Point ids are the caller's and unique in the collection; a document may have
	// no points.
	Replace(ctx context.Context, entries ...Entry) error
	// Delete removes documents; those that are not there are no error.
	Delete(ctx context.Context, names ...string) error
	// Query returns the nearest points, best first; points as near as each other in the order of their ids.
	Query(ctx context.Context, q Query) ([]Hit, error)
	// Documents returns what is there, by name: who compares Version finds what is stale.
	Documents(ctx context.Context) ([]Document, error)
	// Save makes what was written survive a power cut. The death of the process it survives anyway. What it finds damaged on its way is a
	// *DamagedError.
	Save(ctx context.Context) error
}

// A Document is what points belong to: a note, a page, a fact.
type Document struct {
	Name     string    // unique in its collection; a path, with slashes
	Version  string    // the caller's: a hash of what was embedded
	Type     string    // the caller's: "note", "pdf"
	Tags     []string  // without "#"
	Modified time.Time // kept in milliseconds, UTC; zero: not known
	Points   int       // told by Documents, ignored by Replace
}

// A Point is one vector. Only its direction counts.
type Point struct {
	ID     uint64
	Vector []float32
	Words  Words // for a Worded collection; others do not keep them
}

// Words are counted terms: terms of any numbers, ascending, each with its weight.
type Words struct {
	Terms   []uint32
	Weights []float32
}

// An Entry is a Document with its points.
type Entry struct {
	Document
	Points []Point
}

// A Query asks for the Limit points nearest to Vector among those that the Filter lets through.
type Query struct {
	Vector []float32
	Limit  int
	Filter Filter
}

// A Worded is a Collection that also finds points by their words.
type Worded interface {
	Collection
	// Search returns the points that answer a Question best, best first. Points that have none of its words are not found by words.
	Search(ctx context.Context, q Question) ([]Hit, error)
}

// A Question asks by words, or by both lanes at once: then each gives its best, and the store fuses them. Without words it is a Query.
type Question struct {
	Query       // without a Vector: by words alone
	Words Words // of the question
}

// A Filter lets documents through that fulfil all of its conditions; the zero value lets all through.
type Filter struct {
	Names   []string   // the name is one of these,
	Folders []string   // or below one of these: "work/2026" has "work/2026/a.md"; both empty: all
	Types   []string   // any of them
	Tags    [][]string // of each list any of them, as they are written
	After   time.Time
	Before  time.Time // of Modified: After <= Modified < Before; the zero time is no bound
}

// Empty says that f lets everything through.
func (f Filter) Empty() bool {
	return len(f.Names)+len(f.Folders)+len(f.Types)+len(f.Tags) == 0 && f.After.IsZero() && f.Before.IsZero()
}

// Match says whether f lets d through. A document without a time is outside of every bound.
func (f Filter) Match(d Document) bool {
	below := func(folder string) bool { return strings.HasPrefix(d.Name, strings.TrimSuffix(folder, "/")+"/") }
	if len(f.Names)+len(f.Folders) > 0 && !slices.Contains(f.Names, d.Name) && !slices.ContainsFunc(f.Folders, below) {
		return false
	}
	if len(f.Types) > 0 && !slices.Contains(f.Types, d.Type) {
		return false
	}
	for _, list := range f.Tags {
		if !slices.ContainsFunc(list, func(t string) bool { return slices.Contains(d.Tags, t) }) {
			return false
		}
	}
	if !f.After.IsZero() && (d.Modified.IsZero() || d.Modified.Before(f.After)) {
		return false
	}
	return f.Before.IsZero() || !d.Modified.IsZero() && d.Modified.Before(f.Before)
}

// A Hit is a point that was found. Score is the cosine, -1 to 1; of a Question with words it is the store's own.
type Hit struct {
	ID       uint64
	Document string
	Score    float32
}

// Check returns what is wrong with entries for a collection of this stamp.
func (s Stamp) Check(entries []Entry) error {
	for _, e := range entries {
		if e.Name == "" {
			return errors.New("store document: its name is empty")
		}
		for _, p := range e.Points {
			if err := s.check(p.Vector); err != nil {
				return fmt.Errorf("store point %d of %q: %w", p.ID, e.Name, err)
			}
			if len(p.Words.Terms) != len(p.Words.Weights) {
				return fmt.Errorf("store point %d of %q: %d terms have %d weights", p.ID, e.Name, len(p.Words.Terms), len(p.Words.Weights))
			}
		}
	}
	return nil
}

// CheckQuery returns what is wrong with q for a collection of this stamp.
func (s Stamp) CheckQuery(q Query) error {
	if q.Limit < 1 {
		return fmt.Errorf("search vectors: a limit of %d finds nothing", q.Limit)
	}
	if err := s.check(q.Vector); err != nil {
		return fmt.Errorf("search vectors: %w", err)
	}
	return nil
}

func (s Stamp) check(v []float32) error {
	if len(v) != s.Dimensions {
		return fmt.Errorf("the vector has %d dimensions, those of %s have %d; embed with that model", len(v), s.Model, s.Dimensions)
	}
	if !HasDirection(v) {
		return errors.New("the vector is zero or not made of numbers, so it points nowhere; embed the text again")
	}
	return nil
}

// HasDirection says that v points somewhere: it is neither zero nor made of what is no number.
func HasDirection(v []float32) bool {
	n := length(v)
	return n != 0 && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// length returns the length of v, summed in float64.
func length(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// Unit returns v with length one.
func Unit(v []float32) []float32 {
	n, out := length(v), make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(float64(x) / n)
	}
	return out
}

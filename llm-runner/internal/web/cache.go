package web

import (
	"container/list"
	"html/template"
	"sync"
)

// A cache keeps the HTML of finished answers, the least recently used of which goes first. It is safe for concurrent use.
type cache struct {
	mu    sync.Mutex
	room  int // bytes
	byID  map[cacheKey]*list.Element
	order list.List // of *cached, the most recently used in front
	made  int       // how often something was rendered
}

// A finished answer never changes under the same number and place in its log.
type cacheKey struct{ turn, seq int64 }

type cached struct {
	key    cacheKey
	blocks []template.HTML
	size   int
}

func newCache(bytes int) *cache { return &cache{room: bytes, byID: map[cacheKey]*list.Element{}} }

// get returns the blocks of a finished answer, made once.
func (c *cache) get(k cacheKey, render func() []block) []template.HTML {
	c.mu.Lock()
	if e := c.byID[k]; e != nil {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cached).blocks
	}
	c.mu.Unlock()
	made := &cached{key: k, blocks: trusted(render()), size: 256}
	for _, b := range made.blocks {
		made.size += len(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	if c.byID[k] == nil {
		c.byID[k] = c.order.PushFront(made)
		c.room -= made.size
	}
	for c.room < 0 && c.order.Len() > 1 {
		oldest := c.order.Remove(c.order.Back()).(*cached)
		delete(c.byID, oldest.key)
		c.room += oldest.size
	}
	return made.blocks
}

// trusted marks blocks that the policy has sanitised as such for html/template.
func trusted(blocks []block) []template.HTML {
	all := make([]template.HTML, len(blocks))
	for i, b := range blocks {
		all[i] = template.HTML(b) //nolint:gosec // sanitised by markdown.render
	}
	return all
}

package match

// Budget bounds what the filters of one tenant may cost in one batch, in units of
// CEL cost (about 0.1 µs each). The evaluation that uses it up still ends, so it
// may be overdrawn by one cost limit and one parse of data; after that every filter
// not yet evaluated is rejected with ReasonFilterBudget. It belongs to one goroutine.
type Budget struct {
	left uint64
}

// NewBudget returns a budget of that many units. Zero allows no filter at all.
func NewBudget(cost uint64) *Budget { return &Budget{left: cost} }

// Left returns the units that are left.
func (b *Budget) Left() uint64 { return b.left }

// Exhausted reports whether filters are no longer evaluated. A nil budget never is.
func (b *Budget) Exhausted() bool { return b != nil && b.left == 0 }

func (b *Budget) spend(cost uint64) {
	if b != nil {
		b.left -= min(cost, b.left)
	}
}

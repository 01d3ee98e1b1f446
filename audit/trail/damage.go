package trail

import "fmt"

// A Damage says in which way a log is not what was written.
type Damage string

// The kinds of damage. More may be added.
const (
	DamageEdited    Damage = "edited"    // a record was changed
	DamageMissing   Damage = "missing"   // records were taken out, or a whole segment
	DamageReordered Damage = "reordered" // a record is not in its place
	DamageTruncated Damage = "truncated" // records at the end are gone that a checkpoint has pinned: cut off, or an old copy put back
	DamageRewritten Damage = "rewritten" // the log is consistent in itself, and is not the one that was pinned
	DamageSwapped   Damage = "swapped"   // a segment is not the one that its name says, or does not continue the one before
	DamageSignature Damage = "signature" // a checkpoint is not signed by the log's key, or is not what was signed
	DamageTorn      Damage = "torn"      // the log ends in something that no checkpoint covers: an unfinished write, or an addition
	DamageIndex     Damage = "index"     // the index of a segment does not fit its records
)

// A DamageError reports the first place where a log is not what was written.
type DamageError struct {
	Kind Damage

	// First and Last are the numbers of the records in question, both
	// included; Last is less than First if no record is. The damage lies
	// within, and all records before First are sound.
	First, Last int64

	File   string // in which it was found
	Offset int64  // in File, in bytes
	Detail string
}

func (e *DamageError) Error() string {
	where := fmt.Sprintf("record %d", e.First)
	switch {
	case e.Last > e.First:
		where = fmt.Sprintf("records %d to %d", e.First, e.Last)
	case e.Last < e.First:
		where = fmt.Sprintf("after record %d", e.First-1)
	}
	return fmt.Sprintf("trail: %s: %s, at %s+%d: %s", e.Kind, where, e.File, e.Offset, e.Detail)
}

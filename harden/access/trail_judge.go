package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/managemyclaw/hardshell/audit/trail"
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/internal/procfs"
)

const pinRemedy = "pin one, and keep it where whoever has this machine cannot change it: managemyclaw trail pin"

// lookInto is what to do about a log that is not what was written.
const lookInto = "leave everything as it is, copy the log and its checkpoints away, and find out who could write there"

// judgeTrail judges whether a log is what was written.
func judgeTrail(_ context.Context, r TrailReview) (harden.Verdict, error) {
	const id = "access.trail_verifies"
	damage, damaged := errors.AsType[*trail.DamageError](r.Err)
	switch {
	case r.Gone:
		return harden.Fail(harden.Finding{
			ID: id + ".gone", Severity: harden.SeverityCritical, Message: "the log is gone: there is a key or a pinned checkpoint of it, and no record", Remedy: lookInto,
			Evidence: []harden.Evidence{at(harden.LevelInspected, r.Trail.Dir, "no log", "the log")},
		}), nil
	case damaged:
		return harden.Fail(harden.Finding{
			ID: id + "." + string(damage.Kind), Severity: harden.SeverityCritical, Message: fmt.Sprintf("the log is not what was written: %v", damage), Remedy: lookInto,
			Evidence: []harden.Evidence{at(harden.LevelInspected, path.Join(r.Trail.Dir, damage.File), string(damage.Kind), "what was signed")},
		}), nil
	case r.Err != nil:
		return harden.Verdict{}, r.Err
	case r.Key.IsZero() || r.Summary.Checkpoint.Note() == "":
		return harden.Verdict{}, errors.New("it was not verified")
	case r.Pinned == nil:
		// What is there is consistent in itself. So would be another log by
		// the same key, and the first half of this one.
		return harden.Verdict{}, fmt.Errorf("no checkpoint is pinned, so that nobody can tell whether this is the log that was written, and all of it: %s: %w", pinRemedy, cause(r.PinErr))
	case r.Summary.Checkpoint.Size < r.Pinned.Size:
		return harden.Verdict{}, errors.New("it was not compared with the pinned checkpoint")
	}
	return harden.Pass(at(harden.LevelInspected, r.Trail.Dir,
		fmt.Sprintf("%d records and %d retired ones are those that were signed, and extend the %d that are pinned in %s", r.Summary.Records, r.Summary.Retired, r.Pinned.Size, r.Trail.Pin), "what was signed")), nil
}

// judgePinned judges whether what is in a log can be cut off unseen.
func judgePinned(_ context.Context, r TrailReview) (harden.Verdict, error) {
	const id = "access.trail_pinned"
	fail := func(kind, message, remedy, observed string) (harden.Verdict, error) {
		return harden.Fail(harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, r.Trail.Pin, observed, "a checkpoint that covers all but the newest records")},
		}), nil
	}
	limit := r.Trail.MaxUnpinned
	if limit <= 0 {
		limit = DefaultMaxUnpinned
	}
	switch {
	case errors.Is(r.PinErr, trail.ErrCheckpoint):
		return fail("foreign", "what is pinned is no checkpoint of this log's: it, or the log's key, was exchanged", lookInto, "not signed by the log's key")
	case r.Pinned != nil && procfs.Below(path.Clean(r.Trail.Pin), r.Trail.Dir):
		return fail("beside", "the checkpoint is kept in the log's own directory: whoever puts an old copy of that back, puts it back too", "keep it elsewhere, best on another machine's disk", "in "+r.Trail.Dir)
	case r.Err != nil:
		return harden.Verdict{}, fmt.Errorf("the log could not be verified: %w", r.Err)
	case r.Pinned == nil && errors.Is(r.PinErr, fs.ErrNotExist):
		return harden.Verdict{}, fmt.Errorf("nothing is pinned: %s: %w", pinRemedy, r.PinErr)
	case r.Pinned == nil:
		return harden.Verdict{}, cause(r.PinErr)
	case r.ReadErr != nil:
		return harden.Verdict{}, r.ReadErr
	case r.Summary.Checkpoint.Size < r.Pinned.Size || r.Now.IsZero():
		return harden.Verdict{}, errors.New("it was not compared with the log")
	}
	left := r.Summary.Checkpoint.Size - r.Pinned.Size
	if left > 0 && r.Unpinned.IsZero() {
		return harden.Verdict{}, errors.New("when the first record was made that is not pinned is not known")
	}
	if age := r.Now.Sub(r.Unpinned); left > 0 && age > limit {
		return fail("stale", fmt.Sprintf("%d records, from %s on, are covered by no pinned checkpoint, and can be cut off unseen", left, stamp(r.Unpinned)), "pin the log now, and see why that is not done any more: managemyclaw trail pin",
			fmt.Sprintf("a checkpoint of %d of %d records", r.Pinned.Size, r.Summary.Checkpoint.Size))
	}
	return harden.Pass(at(harden.LevelInspected, r.Trail.Pin,
		fmt.Sprintf("a checkpoint of %d of %d records; it is worth as much as the place where it is", r.Pinned.Size, r.Summary.Checkpoint.Size), "one that covers all but the newest")), nil
}

// judgeFresh judges whether what happens now is recorded.
func judgeFresh(_ context.Context, r TrailReview) (harden.Verdict, error) {
	const id = "access.trail_fresh"
	fail := func(kind, message, remedy, observed string) (harden.Verdict, error) {
		return harden.Fail(harden.Finding{
			ID: id + "." + kind, Message: message, Remedy: remedy,
			Evidence: []harden.Evidence{at(harden.LevelInspected, r.Trail.Dir, observed, "what happens now")},
		}), nil
	}
	age := r.Now.Sub(r.Last)
	switch {
	case r.Now.IsZero():
		return harden.Verdict{}, errors.New("it was not looked at")
	case r.Trail.MaxAge <= 0 && !r.Trail.Gateway:
		return harden.NotApplicable("nothing need be recorded in it unless something is changed"), nil
	case r.Err != nil:
		return harden.Verdict{}, fmt.Errorf("the log could not be verified: %w", r.Err)
	case r.ReadErr != nil:
		return harden.Verdict{}, r.ReadErr
	case r.Asked && r.AskErr == nil && !r.Recorded:
		return fail("unrecorded", "the gateway has refused a request, and that is not in this log: what agents do is recorded elsewhere, or not at all",
			"name the log that the gateway writes to, and see what the gateway says of it", "no record of the request")
	case !r.Last.IsZero() && age < -clockSlack:
		return fail("future", fmt.Sprintf("the last record says that it is of %s, which is yet to come", stamp(r.Last)), "set the clock, and find out who changed it", stamp(r.Last))
	case r.Asked && r.AskErr != nil:
		return harden.Verdict{}, fmt.Errorf("whether the gateway records could not be tried: %w", r.AskErr)
	case r.Asked:
		return harden.Pass(at(harden.LevelProbed, r.Trail.Dir, "the gateway refused a request, and the record of that is there", "what happens now")), nil
	case r.Trail.MaxAge <= 0:
		return harden.Verdict{}, errors.New("it is not known where the gateway is, nor how often it must record something")
	case r.Last.IsZero():
		return fail("silent", "there is no record in it", "start the gateway", "empty")
	case age > r.Trail.MaxAge:
		return fail("silent", fmt.Sprintf("the last record is of %s: nothing was recorded since, not even that the gateway lives", stamp(r.Last)), "start the gateway, or find out what it waits for", stamp(r.Last))
	}
	return harden.Pass(at(harden.LevelInspected, r.Trail.Dir, "the last record is of "+stamp(r.Last), fmt.Sprintf("one of the last %v", r.Trail.MaxAge))), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

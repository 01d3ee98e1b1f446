package killswitch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReceiptSchema is the schema of a [Receipt].
const ReceiptSchema = "hardshell.receipt/v1"

// A Receipt says what came of a kill. Its JSON is what is signed. The fields of
// a receipt that was signed must not be changed; fields may be added in later
// versions.
type Receipt struct {
	Schema string `json:"schema"`
	Agent  string `json:"agent"`
	Epoch  uint64 `json:"epoch"`
	Reason string `json:"reason"` // why the agent was stopped first in this epoch

	// Fired is when that was, from which all times below count.
	Fired time.Time `json:"fired"`

	// Request is what this receipt is the answer to: a kill has several, if
	// it was fired again or by many.
	Request  Request `json:"request"`
	Requests int     `json:"requests"` // that this run answers

	// Runs counts the attempts in this epoch, and Whole says that the last one
	// has come to its end. One that is not whole was cut off, or is under way.
	Runs    int           `json:"runs"`
	Whole   bool          `json:"whole"`
	Elapsed time.Duration `json:"elapsed_ns"` // of the last run

	Targets []TargetResult `json:"targets"`
	Fence   FenceResult    `json:"fence"`
	Trail   TrailResult    `json:"trail"`

	// Returned counts how often something was back and stopped again, since.
	Returned int `json:"returned"`

	Key       PublicKey `json:"key"` // that it says it is signed by
	Signature string    `json:"signature,omitempty"`
}

// A Request is somebody's wish to stop an agent.
type Request struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"` // see [WithRequester]
	Time   time.Time `json:"time"`
}

// A FenceResult says whether the fence will hold.
type FenceResult struct {
	Durable      bool          `json:"durable"`          // also after the end of the process and a loss of power
	EngagedAfter time.Duration `json:"engaged_after_ns"` // in the last run, from its beginning
	Error        string        `json:"error,omitempty"`
}

// A TrailResult says whether the kill is in the trail.
type TrailResult struct {
	Recorded bool   `json:"recorded"`
	Error    string `json:"error,omitempty"`
}

// A TargetResult says what came of one target.
type TargetResult struct {
	Name  string `json:"name"`
	State State  `json:"state"`

	// ConfirmedAfter is how long after [Receipt.Fired] the observers were
	// agreed that the target is off, not to be contradicted later. Zero if it
	// is not confirmed.
	ConfirmedAfter time.Duration `json:"confirmed_after_ns"`

	Objects []ObjectResult `json:"objects"` // by name
	Open    []Open         `json:"open"`

	Tried     []Attempt     `json:"tried"`
	Observers []LookResult  `json:"observers"`
	Elapsed   time.Duration `json:"elapsed_ns"` // of its part of the last run

	// Reobserved says that it was confirmed before, and only looked at again.
	Reobserved bool `json:"reobserved,omitempty"`
}

// An ObjectResult says what came of one object of a target, such as an account.
type ObjectResult struct {
	Name           string        `json:"name"`
	State          State         `json:"state"`
	ConfirmedAfter time.Duration `json:"confirmed_after_ns"`
	Status         string        `json:"status,omitempty"` // as the observer has it
}

// An Open is something that may still be used, and that may be no observer's
// to see: a target that is confirmed can have some.
type Open struct {
	What string `json:"what"`
	Why  string `json:"why"`
	Said string `json:"said_by"` // the actuator
}

// An Attempt is what came of an actuator.
type Attempt struct {
	Rung     int           `json:"rung"` // from 1
	Actuator string        `json:"actuator"`
	Begun    time.Duration `json:"begun_after_ns"`
	Returned time.Duration `json:"returned_after_ns"` // zero if it did not
	Error    string        `json:"error,omitempty"`

	// Abandoned says that it went on after its time was over. It may still.
	Abandoned bool `json:"abandoned,omitempty"`
}

// A LookResult is what an observer last said.
type LookResult struct {
	Observer  string        `json:"observer"`
	Looks     int           `json:"looks"`
	Remaining int           `json:"remaining"`
	Last      time.Duration `json:"last_after_ns"` // when the last look ended
	Error     string        `json:"error,omitempty"`
	Abandoned bool          `json:"abandoned,omitempty"`
}

// Off reports whether the kill has come to its end with every target
// [Confirmed].
func (r *Receipt) Off() bool {
	return r.Whole && len(r.Targets) > 0 && !slices.ContainsFunc(r.Targets, func(t TargetResult) bool { return t.State != Confirmed })
}

// Clear reports whether the agent is [Receipt.Off] and nothing stays open.
func (r *Receipt) Clear() bool {
	return r.Off() && !slices.ContainsFunc(r.Targets, func(t TargetResult) bool { return len(t.Open) > 0 })
}

// String returns a line about the kill.
func (r *Receipt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s epoch %d:", r.Agent, r.Epoch)
	for i, t := range r.Targets {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %s", t.Name, t.State)
		if t.State == Confirmed {
			fmt.Fprintf(&b, " after %v", t.ConfirmedAfter)
		}
		if n := len(t.Open); n > 0 {
			fmt.Fprintf(&b, " (%d open)", n)
		}
	}
	if !r.Whole {
		b.WriteString("; unfinished")
	}
	return b.String()
}

// sign signs r. One that cannot be signed is not.
func (r *Receipt) sign(k *Key) (err error) {
	r.Key, r.Signature = k.Public(), ""
	r.Signature, err = sign(k, ReceiptSchema, r)
	return err
}

// VerifyReceipt reads a receipt that must be signed by a key: its JSON, whose
// white space does not matter. The error wraps [ErrSignature] if it is not.
func VerifyReceipt(data []byte, key PublicKey) (*Receipt, error) {
	r := new(Receipt)
	if err := verify(key, ReceiptSchema, data, r); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseReceipt reads a receipt without asking who signed it.
func ParseReceipt(data []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := decode(ReceiptSchema, data, r); err != nil {
		return nil, err
	}
	return r, nil
}

// LastReceipt returns the last receipt of an agent in the directory of its
// switch, [Config.Dir]. Unless the key is zero, the receipt must be signed by
// it. The error wraps [fs.ErrNotExist] if there is none.
func LastReceipt(dir, agent string, key PublicKey) (*Receipt, error) {
	epochs, err := receiptEpochs(dir, agent)
	if err != nil {
		return nil, err
	}
	if len(epochs) == 0 {
		return nil, fmt.Errorf("killswitch: %s has no receipt: %w", agent, fs.ErrNotExist)
	}
	return readReceipt(dir, agent, epochs[len(epochs)-1], key)
}

func readReceipt(dir, agent string, epoch uint64, key PublicKey) (*Receipt, error) {
	data, err := readFile(receiptFile(dir, agent, epoch))
	if err != nil {
		return nil, fmt.Errorf("killswitch: receipt: %w", err)
	}
	var r *Receipt
	if key.IsZero() {
		r, err = ParseReceipt(data)
	} else {
		r, err = VerifyReceipt(data, key)
	}
	if err == nil && (r.Agent != agent || r.Epoch != epoch) {
		err = fmt.Errorf("killswitch: receipt: %s is that of %s, epoch %d", receiptFile(dir, agent, epoch), bounded(r.Agent, maxName), r.Epoch)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func receiptFile(dir, agent string, epoch uint64) string {
	return filepath.Join(dir, "receipts", agent, fmt.Sprintf("%020d.json", epoch))
}

// receiptEpochs returns the epochs of which there is a receipt, in order.
func receiptEpochs(dir, agent string) ([]uint64, error) {
	if !isAgent(agent) {
		return nil, fmt.Errorf("killswitch: receipt: %w: %q", ErrAgent, bounded(agent, maxName))
	}
	entries, err := os.ReadDir(filepath.Join(dir, "receipts", agent))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("killswitch: receipts: %w", err)
	}
	var epochs []uint64
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if n, err := strconv.ParseUint(base, 10, 64); ok && err == nil && len(base) == 20 {
			epochs = append(epochs, n)
		}
	}
	slices.Sort(epochs)
	return epochs, nil
}

// store writes a receipt where [LastReceipt] finds it.
func (r *Receipt) store(d disk, dir string) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = d.replace(receiptFile(dir, r.Agent, r.Epoch), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%w: the receipt: %w", ErrNotDurable, err)
	}
	return nil
}

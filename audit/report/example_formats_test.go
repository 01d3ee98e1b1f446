package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"

	"github.com/managemyclaw/hardshell/audit/report"
)

func ExampleJSON() {
	var b bytes.Buffer
	if err := report.JSON(&b, sample()); err != nil {
		fmt.Println(err)
		return
	}
	r, err := report.ParseJSON(&b)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d of %d pass\n", r.Score.Passed, r.Score.Total)
	fmt.Println(r.Points[0].Point, "is", r.Points[0].Status)
	fmt.Println(r.Results[0].Findings[0].Message)
	// Output:
	// 0 of 14 pass
	// 1 non-root is fail
	// process 4711 (node) runs as root
}

func ExampleSARIF() {
	var b bytes.Buffer
	if err := report.SARIF(&b, sample()); err != nil {
		fmt.Println(err)
		return
	}
	var log struct {
		Version string
		Runs    []struct {
			Results []struct {
				RuleID, Level string
				Message       struct{ Text string }
			}
			Invocations []struct {
				ExecutionSuccessful        bool
				ToolExecutionNotifications []any
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		fmt.Println(err)
		return
	}
	run := log.Runs[0]
	fmt.Println(log.Version, run.Results[0].Level, run.Results[0].RuleID)
	fmt.Println(run.Results[0].Message.Text)
	fmt.Println(run.Invocations[0].ExecutionSuccessful, len(run.Invocations[0].ToolExecutionNotifications))
	// Output:
	// 2.1.0 error container.non_root
	// container/openclaw: process 4711 (node) runs as root
	// Remedy: Set user: "1000:1000" and recreate the container.
	// false 13
}

func ExampleJUnit() {
	var b bytes.Buffer
	if err := report.JUnit(&b, sample()); err != nil {
		fmt.Println(err)
		return
	}
	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
	}
	if err := xml.Unmarshal(b.Bytes(), &suites); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d tests, %d failures, %d errors\n", suites.Tests, suites.Failures, suites.Errors)
	// Output: 14 tests, 1 failures, 13 errors
}

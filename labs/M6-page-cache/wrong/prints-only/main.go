// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("two share a page, the third has its own") }

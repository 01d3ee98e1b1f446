package killswitch_test

func child() {}

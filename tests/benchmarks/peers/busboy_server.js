'use strict';

require('./store.js').serve(() => {});
